//! Who may talk to a monitor and a manager, kept by the real programs: who is refused, by what words on either side, and who is put out.

mod changes;
mod doors;
mod matrix;
mod web;

use std::net::SocketAddr;

use serde_json::json;
use tonic::{Code, Status};
use vantage_contract::v1::{
    ExecuteRequest, Hello, ListClientsRequest, ProbeResult, admin_service_client::AdminServiceClient, execute_request::Order,
    monitor_service_client::MonitorServiceClient,
};

use crate::lab::{
    monitor::silent_port,
    pki::Pki,
    place,
    process::{Ended, MANAGER, MONITOR, Running, run, write},
};

/// A monitor with TLS, with what else it is told.
struct Guarded {
    running: Running,
    at: SocketAddr,
}

impl Guarded {
    /// With the pair "monitor-fra", wanting certificates of its authority.
    async fn start(pki: &Pki) -> Self {
        Self::with(pki, "monitor-fra", &["--client-ca-file", &pki.text("ca.pem")]).await
    }

    async fn with(pki: &Pki, own: &str, more: &[&str]) -> Self {
        let (certificate, key) = (pki.text(&format!("{own}.pem")), pki.text(&format!("{own}.key")));
        Self::plain(&[&["--certificate-file", &certificate, "--key-file", &key], more].concat()).await
    }

    async fn plain(more: &[&str]) -> Self {
        let at = place::own();
        let listen = at.to_string();
        let mut arguments = [&["serve", "--name", "fra", "--listen", &listen, "--data", "memory"], more].concat();
        if !more.contains(&"--http-listen") {
            arguments.extend(["--http-listen", "off"]);
        }
        let mut running = Running::start(MONITOR, &arguments);
        running.says("serving").await;
        Self { running, at }
    }
}

/// What a manager says that asks a monitor once, with this address and these parts of its `tls` and entry.
async fn ask_once(scheme: &str, at: SocketAddr, tls: serde_json::Value, more: serde_json::Value) -> Ended {
    let ((_open, port), folder) = (silent_port().await, tempfile::tempdir().unwrap());
    let mut monitor = json!({ "name": "fra", "address": format!("{scheme}://{at}") });
    if !tls.is_null() {
        monitor["tls"] = tls;
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        monitor[name] = value.clone();
    }
    let checks =
        json!({ "monitors": [monitor], "checks": [{ "name": "web", "tcp": { "host": "127.0.0.1", "port": port }, "timeout": "3s" }] });
    let file = write(folder.path(), "checks.json", &checks.to_string());
    run(MANAGER, &["--config", &file, "--once", "--http", "off"]).await
}

/// The `tls` of a manager that trusts the authority and shows this pair, if one is named.
fn tls(pki: &Pki, own: Option<&str>) -> serde_json::Value {
    let mut tls = json!({ "ca_file": pki.text("ca.pem") });
    if let Some(own) = own {
        tls["certificate_file"] = json!(pki.text(&format!("{own}.pem")));
        tls["key_file"] = json!(pki.text(&format!("{own}.key")));
    }
    tls
}

/// What a call of AdminService comes to.
async fn list(channel: tonic::transport::Channel, token: Option<&str>) -> Result<usize, Code> {
    let mut request = tonic::Request::new(ListClientsRequest::default());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let answer = AdminServiceClient::new(channel).list_clients(request).await;
    answer.map(|answer| answer.into_inner().clients.len()).map_err(|status| status.code())
}

/// A stream that is open, or how it was refused.
async fn execute(channel: tonic::transport::Channel, token: Option<&str>) -> Result<Open, Status> {
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let hello = Hello { client_id: "tester".into(), ..Hello::default() };
    requests.send(ExecuteRequest { order: Some(Order::Hello(hello)) }).await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let results = MonitorServiceClient::new(channel).execute(request).await?.into_inner();
    Ok(Open { _requests: requests, results })
}

struct Open {
    _requests: tokio::sync::mpsc::Sender<ExecuteRequest>,
    results: tonic::Streaming<ProbeResult>,
}

impl Open {
    /// How the stream ends, which has no orders.
    async fn end(&mut self) -> Status {
        let ended = tokio::time::timeout(crate::lab::monitor::PATIENCE, self.results.message())
            .await
            .expect("an end within the patience of a test");
        ended.expect_err("an error, and no results")
    }
}
