//! What is common to the kinds that speak TLS.
