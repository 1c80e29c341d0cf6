//! Scripted proxies: CONNECT and SOCKS 5, that do as they should.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
};

use super::http::{Requests, Server, finish, read_request};

/// A proxy for CONNECT that goes wherever it is asked to, but as `place` says; and the requests that it had.
pub(crate) async fn connect(place: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> (Server, Requests) {
    let requests = Requests::default();
    let kept = requests.clone();
    let server = Server::start(move |mut stream, _| {
        let (kept, place) = (kept.clone(), place.clone());
        async move {
            let request = read_request(&mut stream).await;
            let target = place(request.split(' ').nth(1).unwrap_or_default());
            kept.push(request);
            match TcpStream::connect(&target).await {
                Ok(mut far) => {
                    let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
                    let _ = copy_bidirectional(&mut stream, &mut far).await;
                }
                Err(_) => {
                    let _ = stream.write_all(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n").await;
                    finish(stream).await;
                }
            }
        }
    })
    .await;
    (server, requests)
}

/// A proxy of SOCKS 5 for this user and password (none: for everybody), that takes names to this address; and whom it was asked for.
pub(crate) async fn socks(login: Option<(&'static str, &'static str)>, names: SocketAddr) -> (Server, Requests) {
    let requests = Requests::default();
    let kept = requests.clone();
    let server = Server::start(move |mut stream, _| {
        let kept = kept.clone();
        async move {
            let _ = serve(&mut stream, login, names, &kept).await;
            finish(stream).await;
        }
    })
    .await;
    (server, requests)
}

async fn serve(stream: &mut TcpStream, login: Option<(&str, &str)>, names: SocketAddr, kept: &Requests) -> std::io::Result<()> {
    let mut methods = vec![0; usize::from(two(stream).await?[1])];
    stream.read_exact(&mut methods).await?;
    if let Some((user, password)) = login {
        if !methods.contains(&2) {
            return stream.write_all(&[5, 255]).await;
        }
        stream.write_all(&[5, 2]).await?;
        assert_eq!(stream.read_u8().await?, 1, "the version of RFC 1929");
        let given = (text(stream).await?, text(stream).await?);
        let is_right = given == (user.to_owned(), password.to_owned());
        stream.write_all(&[1, u8::from(!is_right)]).await?;
        if !is_right {
            return Ok(());
        }
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    assert_eq!([two(stream).await?[1], stream.read_u8().await?], [1, 0], "CONNECT, and the reserved byte");
    let (asked, place) = match stream.read_u8().await? {
        1 => {
            let mut octets = [0; 4];
            stream.read_exact(&mut octets).await?;
            let place = SocketAddr::from((octets, stream.read_u16().await?));
            (place.to_string(), place)
        }
        4 => {
            let mut octets = [0; 16];
            stream.read_exact(&mut octets).await?;
            let place = SocketAddr::from((octets, stream.read_u16().await?));
            (place.to_string(), place)
        }
        _ => (format!("{}:{}", text(stream).await?, stream.read_u16().await?), names),
    };
    kept.push(asked);
    match TcpStream::connect(place).await {
        Ok(mut far) => {
            stream.write_all(&[5, 0, 0, 3, 4, b'h', b'e', b'r', b'e', 0, 0]).await?;
            copy_bidirectional(stream, &mut far).await.map(drop)
        }
        Err(_) => stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await,
    }
}

async fn two(stream: &mut TcpStream) -> std::io::Result<[u8; 2]> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn text(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}
