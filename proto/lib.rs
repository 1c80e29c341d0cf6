//! The contract of Vantage: what a manager and a monitor may say to each other.
//!
//! [`v1`] holds the messages and services of the package `vantage.v1`; the laws of the stream stand above
//! [`Execute`](v1::monitor_service_client::MonitorServiceClient::execute). [`descriptors`] is the same contract as data, which is how the
//! manager shows reports of kinds that it has never heard of. The file of checks is read into the same messages by [`mod@file`].

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub mod duration;
pub mod file;
pub mod json;
pub mod labels;
pub mod secret;

/// The messages and services of `vantage.v1`, generated from the .proto files.
pub mod v1 {
    #![expect(
        clippy::all,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        unused_qualifications,
        reason = "generated code; its comments are those of the .proto files"
    )]
    tonic::include_proto!("vantage.v1");
}

/// The contract's descriptors (a serialized `google.protobuf.FileDescriptorSet`), imports included: what reflection serves.
pub const DESCRIPTOR_BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vantage.descriptors.bin"));

/// The contract's descriptors as a pool, decoded once.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        #[expect(clippy::expect_used, reason = "the bytes come from our own build script")]
        DescriptorPool::decode(DESCRIPTOR_BYTES).expect("the build script wrote these descriptors")
    });
    &POOL
}
