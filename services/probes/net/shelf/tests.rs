use std::net::UdpSocket;

use super::*;

fn server() -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

/// Asks, and is answered as often as that.
async fn exchange(shared: &mut Shared, server: &UdpSocket, answers: usize) {
    let number = shared.number().unwrap();
    shared.socket.send(&number.to_be_bytes()).unwrap();
    let mut question = [0; 2];
    let (_, from) = server.recv_from(&mut question).unwrap();
    for _ in 0..answers {
        server.send_to(&question, from).unwrap();
    }
    assert_eq!(shared.socket.receive().await.unwrap().bytes, question);
}

#[tokio::test]
async fn a_socket_that_is_put_back_is_taken_again_by_the_same_way_alone() {
    let (server, address) = server();
    let shelf = Shelf::default();
    let mut shared = shelf.take(address, None).unwrap();
    exchange(&mut shared, &server, 1).await;
    let port = shared.socket.local_address();
    shelf.put_back(shared);
    let (_other, elsewhere) = self::server();
    assert_ne!(shelf.take(elsewhere, None).unwrap().socket.local_address(), port);
    assert_ne!(shelf.take(address, Some([127, 0, 0, 1].into())).unwrap().socket.local_address(), port);
    let again = shelf.take(address, None).unwrap();
    assert_eq!(again.socket.local_address(), port);
    assert_ne!(shelf.take(address, None).unwrap().socket.local_address(), port, "one run has it at a time");
}

#[tokio::test]
async fn a_second_answer_to_an_earlier_question_is_nobodys() {
    let (server, address) = server();
    let shelf = Shelf::default();
    let mut shared = shelf.take(address, None).unwrap();
    exchange(&mut shared, &server, 2).await;
    let earlier = shared.asked.clone();
    shelf.put_back(shared);
    let mut shared = shelf.take(address, None).unwrap();
    // What had come is thrown away, and what comes later has a number that is none of the questions' from now on.
    exchange(&mut shared, &server, 1).await;
    assert!(!earlier.is_empty() && shared.asked.starts_with(&earlier));
    shared.asked = (0..0x8000).collect();
    assert!((0..20).all(|_| shared.number().unwrap() >= 0x8000));
}

#[tokio::test]
async fn a_socket_that_heard_an_error_since_is_not_taken_again() {
    let (server, address) = server();
    let shelf = Shelf::default();
    let mut shared = shelf.take(address, None).unwrap();
    exchange(&mut shared, &server, 1).await;
    let port = shared.socket.local_address();
    drop(server);
    // Nobody is there any more, and says so.
    shared.socket.send(b"late").unwrap();
    shelf.put_back(shared);
    assert_ne!(shelf.take(address, None).unwrap().socket.local_address(), port);
}

#[tokio::test]
async fn no_port_is_kept_for_long() {
    let (server, address) = server();
    let shelf = Shelf::default();
    let mut shared = shelf.take(address, None).unwrap();
    for _ in 0..MOST_ASKED {
        exchange(&mut shared, &server, 1).await;
    }
    let port = shared.socket.local_address();
    shelf.put_back(shared);
    assert_ne!(shelf.take(address, None).unwrap().socket.local_address(), port, "it asked enough");

    let mut shared = shelf.take(address, None).unwrap();
    exchange(&mut shared, &server, 1).await;
    let port = shared.socket.local_address();
    shared.opened -= LIFETIME;
    shelf.put_back(shared);
    assert_ne!(shelf.take(address, None).unwrap().socket.local_address(), port, "it had its time");
}

#[tokio::test]
async fn sockets_that_nobody_takes_are_closed() {
    let (_server, address) = server();
    let shelf = Shelf::default();
    for _ in 0..MOST_OF_ONE + 10 {
        // Each is another one as long as none is put back.
        let all: Vec<_> = (0..2).map(|_| shelf.take(address, None).unwrap()).collect();
        all.into_iter().for_each(|shared| shelf.put_back(shared));
    }
    assert_eq!(lock(&shelf.0).count, 2);
    let all: Vec<_> = (0..MOST_OF_ONE + 10).map(|_| shelf.take(address, None).unwrap()).collect();
    all.into_iter().for_each(|shared| shelf.put_back(shared));
    assert_eq!(lock(&shelf.0).count, MOST_OF_ONE);
    while lock(&shelf.0).count > 0 {
        assert!(lock(&shelf.0).swept);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = lock(&shelf.0);
    assert!(!kept.swept && kept.sockets.is_empty());
}
