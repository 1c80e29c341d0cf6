mod dns;
mod lab;
mod names;
mod ntp;
mod udp;
