mod http;
mod https;
mod lab;
mod tcp;
