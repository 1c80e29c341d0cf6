//! The results of a stream, one by one as they go out, from the lots in which the session hands them over.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

/// The results of a stream.
pub(crate) struct Results {
    lots: mpsc::Receiver<Result<Vec<Bytes>, Status>>,
    lot: vec::IntoIter<Bytes>,
}

impl Results {
    pub(super) fn new(lots: mpsc::Receiver<Result<Vec<Bytes>, Status>>) -> Self {
        Self { lots, lot: Vec::new().into_iter() }
    }
}

impl Stream for Results {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(result) = self.lot.next() {
                return Poll::Ready(Some(Ok(result)));
            }
            match ready!(self.lots.poll_recv(context)) {
                Some(Ok(lot)) => self.lot = lot.into_iter(),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}
