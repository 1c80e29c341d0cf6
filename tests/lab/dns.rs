//! Scripted DNS servers, built on another codec than the probes'.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

use super::udp::UdpServer;

/// A question as it came.
pub(crate) struct Asked {
    /// The message.
    pub(crate) message: Message,
    /// Its number on this server, from 0, over all transports.
    pub(crate) number: usize,
    /// Whether it came over TCP.
    pub(crate) over_tcp: bool,
}

impl Asked {
    /// An empty answer to it.
    pub(crate) fn answer(&self) -> Message {
        let mut answer = Message::new(self.message.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_desired = self.message.metadata.recursion_desired;
        answer.add_queries(self.message.queries.clone());
        answer
    }

    /// An answer with records, written like in a zone file: `example.com. 60 A 192.0.2.1` as name, TTL and data.
    pub(crate) fn with(&self, records: &[(&str, u32, RData)]) -> Message {
        let mut answer = self.answer();
        for (name, ttl, data) in records {
            answer.add_answer(record(name, *ttl, data.clone()));
        }
        answer
    }

    /// An answer with an rcode alone.
    pub(crate) fn refused_as(&self, rcode: ResponseCode) -> Message {
        let mut answer = self.answer();
        answer.metadata.response_code = rcode;
        answer
    }
}

/// A record.
pub(crate) fn record(name: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(Name::from_str(name).expect("a name"), ttl, data)
}

/// An A record's data.
pub(crate) fn a(address: [u8; 4]) -> RData {
    RData::A(std::net::Ipv4Addr::from(address).into())
}

/// An AAAA record's data.
pub(crate) fn aaaa(address: &str) -> RData {
    RData::AAAA(address.parse::<std::net::Ipv6Addr>().expect("an address").into())
}

/// A message's bytes.
pub(crate) fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a message that can be written")
}

/// A server on one port of loopback, over UDP and TCP. Ends when dropped.
pub(crate) struct DnsServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// How many questions it got.
    pub(crate) count: Arc<AtomicUsize>,
    _udp: UdpServer,
    tcp: JoinHandle<()>,
}

impl DnsServer {
    /// Starts a server; the script gives the raw answers to each question.
    pub(crate) async fn start(script: impl FnMut(&Asked) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// Starts a server at an address, whose port may be 0.
    pub(crate) async fn start_at(address: &str, script: impl FnMut(&Asked) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let (udp, listener) = loop {
            let udp = UdpSocket::bind(address).await.expect("bind");
            if let Ok(listener) = TcpListener::bind(udp.local_addr().expect("an address")).await {
                break (udp, listener);
            }
        };
        let address = udp.local_addr().expect("an address");
        let count = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(Mutex::new(script));
        let answer = {
            let (count, script) = (count.clone(), script);
            move |bytes: &[u8], over_tcp| {
                let message = Message::from_vec(bytes).expect("the probe's question is a DNS message");
                let asked = Asked { message, number: count.fetch_add(1, Ordering::SeqCst), over_tcp };
                (script.lock().expect("the script"))(&asked)
            }
        };
        let tcp = tokio::spawn({
            let answer = answer.clone();
            async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let Ok(length) = stream.read_u16().await else { continue };
                    let mut question = vec![0; length.into()];
                    if stream.read_exact(&mut question).await.is_err() {
                        continue;
                    }
                    for message in answer(&question, true) {
                        let length = u16::try_from(message.len()).expect("a message below 64 KiB");
                        let _ = stream.write_all(&[&length.to_be_bytes(), message.as_slice()].concat()).await;
                    }
                }
            }
        });
        let udp = UdpServer::serve(udp, move |_, bytes, _| answer(bytes, false));
        Self { address, count, _udp: udp, tcp }
    }

    /// Starts a server that gives one well-made answer to each question.
    pub(crate) async fn honest(mut script: impl FnMut(&Asked) -> Message + Send + 'static) -> Self {
        Self::start(move |asked| vec![bytes(&script(asked))]).await
    }

    /// Starts a server that knows these names, in lower case and with the final dot, and their addresses of both families.
    pub(crate) async fn zone(names: &[(&str, &[&str])]) -> Self {
        let names: Vec<(String, Vec<IpAddr>)> = names
            .iter()
            .map(|(name, addresses)| ((*name).to_owned(), addresses.iter().map(|address| address.parse().expect("an address")).collect()))
            .collect();
        Self::honest(move |asked| {
            let query = &asked.message.queries[0];
            let name = query.name().to_ascii();
            let Some((name, addresses)) = names.iter().find(|(known, _)| *known == name) else {
                return asked.refused_as(ResponseCode::NXDomain);
            };
            let records: Vec<_> = addresses
                .iter()
                .filter(|address| address.is_ipv4() == (query.query_type() == RecordType::A))
                .map(|address| (name.as_str(), 60, RData::from(*address)))
                .collect();
            asked.with(&records)
        })
        .await
    }

    /// How many questions came.
    pub(crate) fn asked(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.tcp.abort();
    }
}
