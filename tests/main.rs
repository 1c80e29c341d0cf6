//! The promises, kept.

// `cfg(test)` tells the lints that all of it is test.
#[cfg(test)]
mod lab;
#[cfg(test)]
mod ping;
#[cfg(test)]
mod traceroute;
