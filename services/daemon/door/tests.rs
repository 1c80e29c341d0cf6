use std::{
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
};

use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

use super::*;
use crate::{access, audit::Audit, readiness::Readiness};

async fn open(most_connections: usize) -> (SocketAddr, Incoming) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let access = Access::open(access::Settings::default(), Audit::default(), Readiness::default()).unwrap();
    let settings = Settings { name: "test", protocol: Protocol::Grpc, tls: false, most_connections };
    (address, Incoming::open(listener, access, settings))
}

#[tokio::test]
async fn one_connection_more_than_allowed_is_closed_and_the_end_of_one_makes_room() {
    let (address, mut incoming) = open(2).await;
    let _clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let (first, _second) = (incoming.next().await.unwrap(), incoming.next().await.unwrap());
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(matches!(third.read(&mut [0]).await, Ok(0) | Err(_)), "it is closed");
    assert_eq!(first.peer().tls_version(), "none");
    drop(first);
    let _fourth = TcpStream::connect(address).await.unwrap();
    incoming.next().await.expect("there is room again");
}

#[tokio::test]
async fn a_listener_is_closed_with_its_door() {
    let (address, incoming) = open(2).await;
    drop(incoming);
    // It is closed by a task that ends as soon as it is looked after.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_has_much_to_say_lets_others_in_between() {
    let (address, mut incoming) = open(2).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut connection = incoming.next().await.unwrap();
    client.write_all(&[1; 64 * 1024]).await.unwrap();
    let (mut read, mut pauses) = (0, 0);
    while read < 64 * 1024 {
        let mut buffer = [0; 4096];
        read += poll_fn(|context| {
            let mut into = ReadBuf::new(&mut buffer);
            pauses += 1;
            ready!(Pin::new(&mut connection).poll_read(context, &mut into)).unwrap();
            pauses -= 1;
            Poll::Ready(into.filled().len())
        })
        .await;
    }
    // One more where it is not yet known that there is something to read.
    assert!((3..=4).contains(&pauses), "{pauses}");
}
