//! The server of `MonitorService`, for results that are encoded already: the generated one would encode each of them once more, for which
//! it would have to be decoded first.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, StreamingService},
};
use tonic_prost::ProstDecoder;
use vantage_contract::v1::{ExecuteRequest, monitor_service_server::SERVICE_NAME};

use super::{Execute, Results};

/// Serves the streams of clients.
#[derive(Clone)]
pub(crate) struct ExecuteServer(Arc<Execute>);

impl ExecuteServer {
    pub(crate) fn new(execute: Execute) -> Self {
        Self(Arc::new(execute))
    }
}

impl NamedService for ExecuteServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for ExecuteServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
        if method != Some("/Execute") {
            return Box::pin(async { Ok(Status::unimplemented("").into_http()) });
        }
        let method = Method(Arc::clone(&self.0));
        let longest = self.0.shared().settings.limits.request_bytes;
        Box::pin(async move { Ok(Grpc::new(Encoded).apply_max_message_size_config(Some(longest), None).streaming(method, request).await) })
    }
}

struct Method(Arc<Execute>);

impl StreamingService<ExecuteRequest> for Method {
    type Response = Bytes;
    type ResponseStream = Results;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<ExecuteRequest>>) -> Self::Future {
        let execute = Arc::clone(&self.0);
        Box::pin(async move { execute.execute(request).await })
    }
}

/// Requests are decoded, results are `ProbeResult`s as bytes.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExecuteRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<ExecuteRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, result: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&result);
        Ok(())
    }
}
