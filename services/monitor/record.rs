//! What a run leaves: a `ProbeResult`, of which the part that is the same in each run of an order was encoded when the order was placed.

use bytes::Bytes;
use prost::Message as _;
use vantage_contract::v1::ProbeResult;

/// A record of a run, or of a range of them.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What all records of its order say, encoded.
    pub constant: Bytes,
    /// What this one says; its other fields are empty.
    pub said: ProbeResult,
}

impl Record {
    /// The whole, encoded, with what all records of its session say, encoded, too. The fields are not in the order of their numbers, which is no
    /// matter to who decodes them.
    pub fn encode_with(&self, session: &[u8]) -> Bytes {
        // A vector: to put a byte into `BytesMut` costs several times as much.
        let mut bytes = Vec::with_capacity(self.constant.len() + session.len() + self.said.encoded_len());
        bytes.extend_from_slice(&self.constant);
        bytes.extend_from_slice(session);
        self.said.encode_raw(&mut bytes);
        bytes.into()
    }

    /// The whole.
    pub fn whole(&self) -> ProbeResult {
        // What was encoded here can be decoded.
        ProbeResult::decode(self.encode_with(&[])).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_one_record() {
        let constant = ProbeResult { check_name: "web".into(), kind: "tcp".into(), ..ProbeResult::default() };
        let said = ProbeResult { run: 7, summary: "connected".into(), ..ProbeResult::default() };
        let record = Record { constant: constant.encode_to_vec().into(), said: said.clone() };
        let session = ProbeResult { session: "s".into(), ..ProbeResult::default() };
        let whole = ProbeResult { session: "s".into(), run: 7, summary: "connected".into(), ..constant };
        assert_eq!(ProbeResult::decode(record.encode_with(&session.encode_to_vec())), Ok(whole.clone()));
        assert_eq!(record.whole(), ProbeResult { session: String::new(), ..whole });
    }
}
