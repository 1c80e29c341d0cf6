//! DNS messages over sockets.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{random::random, stamped::Stamps, tcp, udp::Connected};
use crate::{
    failure::{Failure, Moment},
    wire::dns::{Answer, Manner, Question, Refusal},
};

/// A random identifier.
pub(crate) fn new_id() -> Result<u16, Failure> {
    random().map(u16::from_be_bytes)
}

/// What to say of an answer that can't be read.
pub(crate) fn malformed(server: SocketAddr, what: &str) -> Failure {
    Failure::target(vantage_contract::v1::Reason::MalformedAnswer, format!("the answer of {server} is malformed: {what}"))
}

/// A message as streams carry it: its length in two bytes before it (RFC 7766 section 8).
pub(crate) fn framed(message: &[u8]) -> Result<Vec<u8>, Failure> {
    let length = u16::try_from(message.len()).map_err(|_| Failure::internal("the question is longer than 64 KiB"))?;
    Ok([&length.to_be_bytes(), message].concat())
}

/// Writes a message as streams carry it, in one piece.
pub(crate) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), server: SocketAddr, message: &[u8]) -> Result<(), Failure> {
    let framed = framed(message)?;
    let failed = |error| Failure::of_io(format!("send to {server}"), &error, Moment::Later);
    stream.write_all(&framed).await.map_err(failed)?;
    stream.flush().await.map_err(failed)
}

/// Reads a message off a stream: at most 64 KiB, as its two bytes of length can't say more.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin), server: SocketAddr) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::of_io(format!("read the answer of {server}"), &error, Moment::Later);
    let length = stream.read_u16().await.map_err(failed)?;
    // Grows with what really comes: a lie about the length costs nothing.
    let mut message = Vec::new();
    stream.take(length.into()).read_to_end(&mut message).await.map_err(failed)?;
    if message.len() < length.into() {
        return Err(Failure::of_io(format!("read the answer of {server}"), &std::io::ErrorKind::UnexpectedEof.into(), Moment::Later));
    }
    Ok(message)
}

/// Asks once over UDP and waits for as long as it takes; asks again over TCP where the answer is truncated.
pub(crate) async fn ask(server: SocketAddr, question: &Question, manner: Manner) -> Result<Answer, Failure> {
    let mut socket = Connected::open(server, None, Stamps::Arrival)?;
    let id = new_id()?;
    socket.send(&question.encode(id, manner))?;
    loop {
        match Answer::decode(socket.receive().await?.bytes, id, question) {
            Ok(answer) if answer.truncated => return ask_over_tcp(server, question, manner).await,
            Ok(answer) => return Ok(answer),
            Err(Refusal::Stranger | Refusal::OtherCase) => {}
            Err(Refusal::Malformed(what)) => return Err(malformed(server, &what)),
        }
    }
}

async fn ask_over_tcp(server: SocketAddr, question: &Question, manner: Manner) -> Result<Answer, Failure> {
    let mut stream = tcp::connect(server, None).await?;
    let id = new_id()?;
    write_message(&mut stream, server, &question.encode(id, manner)).await?;
    loop {
        match Answer::decode(read_message(&mut stream, server).await?, id, question) {
            Ok(answer) => return Ok(answer),
            Err(Refusal::Stranger | Refusal::OtherCase) => {}
            Err(Refusal::Malformed(what)) => return Err(malformed(server, &what)),
        }
    }
}
