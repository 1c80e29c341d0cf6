//! Signatures of chains that were found good, remembered: who signed what is the same in each run, and to verify it costs more than the rest of
//! a handshake. When a certificate is in force, for whom and by whom it is trusted is judged anew each time, and so is the signature by
//! which a server proves that it has its key: that one is over something new each time.

use std::{
    collections::HashSet,
    fmt, mem,
    sync::{Mutex, OnceLock, PoisonError},
};

use ring::digest::{Context, SHA256};
use rustls::{
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm},
};

/// How many are remembered without a doubt; up to twice as many are. Some 100 KiB.
const KEPT: usize = 1024;

/// What was verified with which key and algorithm, as a SHA-256 of all of it.
type Fact = [u8; 32];

/// The same algorithms with a memory, which is one for the process: that a signature is good does not depend on who asks.
pub(super) fn remembering(algorithms: WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    static REMEMBERING: OnceLock<WebPkiSupportedAlgorithms> = OnceLock::new();
    // Made once, as there is one provider of cryptography. It lives as long as the process, as rustls wants it.
    *REMEMBERING.get_or_init(|| {
        let memory: &'static Memory = Box::leak(Box::default());
        let all: Vec<_> = algorithms.all.iter().map(|inner| Remembering { inner: *inner, memory }).collect();
        let all: Vec<&'static dyn SignatureVerificationAlgorithm> =
            Vec::leak(all).iter().map(|one| one as &dyn SignatureVerificationAlgorithm).collect();
        WebPkiSupportedAlgorithms { all: Vec::leak(all), mapping: algorithms.mapping }
    })
}

/// The facts, in two generations: when the younger is full, the older is forgotten.
#[derive(Debug, Default)]
struct Memory(Mutex<[HashSet<Fact>; 2]>);

impl Memory {
    fn knows(&self, fact: &Fact) -> bool {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        if young.contains(fact) {
            return true;
        }
        let is_known = old.contains(fact);
        if is_known {
            remember(young, old, *fact);
        }
        is_known
    }

    fn keep(&self, fact: Fact) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [young, old] = &mut *generations;
        remember(young, old, fact);
    }
}

fn remember(young: &mut HashSet<Fact>, old: &mut HashSet<Fact>, fact: Fact) {
    if young.len() >= KEPT {
        *old = mem::take(young);
    }
    young.insert(fact);
}

/// An algorithm that does not verify twice what it found good once. What it found wrong it verifies again.
struct Remembering {
    inner: &'static dyn SignatureVerificationAlgorithm,
    memory: &'static Memory,
}

impl Remembering {
    fn fact(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Fact {
        let mut context = Context::new(&SHA256);
        let (key_algorithm, signature_algorithm) = (self.inner.public_key_alg_id(), self.inner.signature_alg_id());
        for part in [key_algorithm.as_ref(), signature_algorithm.as_ref(), key, message, signature] {
            // With the lengths, no two are the same bytes in a row.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut fact = Fact::default();
        // A SHA-256 has so many bytes.
        fact.copy_from_slice(context.finish().as_ref());
        fact
    }
}

impl fmt::Debug for Remembering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembering").field(&self.inner).finish()
    }
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let fact = self.fact(key, message, signature);
        if self.memory.knows(&fact) {
            return Ok(());
        }
        self.inner.verify_signature(key, message, signature)?;
        self.memory.keep(fact);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.inner.fips()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustls::pki_types::alg_id;

    use super::*;

    /// Good is what ends as the message does; counts how often it was asked.
    #[derive(Debug, Default)]
    struct Counting(AtomicU32);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(&self, _: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if message.ends_with(signature) { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    fn one() -> (&'static Counting, Remembering) {
        let inner: &'static Counting = Box::leak(Box::default());
        (inner, Remembering { inner, memory: Box::leak(Box::default()) })
    }

    #[test]
    fn what_was_good_is_not_verified_again_and_all_else_is() {
        let (inner, algorithm) = one();
        let asked = |key: &[u8], message: &[u8], signature: &[u8]| {
            let before = inner.0.load(Ordering::Relaxed);
            (algorithm.verify_signature(key, message, signature).is_ok(), inner.0.load(Ordering::Relaxed) - before)
        };
        assert_eq!(asked(b"key", b"message", b"age"), (true, 1));
        assert_eq!(asked(b"key", b"message", b"age"), (true, 0));
        for (key, message, signature) in
            [("kez", "message", "age"), ("key", "massage", "age"), ("key", "message", "ge"), ("keym", "essage", "age")]
        {
            assert_eq!(asked(key.as_bytes(), message.as_bytes(), signature.as_bytes()), (true, 1), "{key} {message} {signature}");
        }
        for _ in 0..2 {
            assert_eq!(asked(b"key", b"message", b"old"), (false, 1), "what is wrong is not remembered");
        }
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let (inner, algorithm) = one();
        for number in 0..10 * KEPT {
            let message = number.to_string();
            algorithm.verify_signature(b"key", b"used each time", b"time").unwrap();
            algorithm.verify_signature(b"key", message.as_bytes(), b"").unwrap();
        }
        assert_eq!(inner.0.load(Ordering::Relaxed) as usize, 10 * KEPT + 1);
        let generations = algorithm.memory.0.lock().unwrap();
        assert!(generations.iter().all(|facts| facts.len() <= KEPT));
    }

    #[test]
    fn the_algorithms_are_those_of_the_provider() {
        let inner = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let outer = remembering(inner);
        let ids = |algorithms: &WebPkiSupportedAlgorithms| -> Vec<_> {
            algorithms.all.iter().map(|one| (one.public_key_alg_id().to_vec(), one.signature_alg_id().to_vec())).collect()
        };
        assert_eq!((ids(&outer), outer.supported_schemes()), (ids(&inner), inner.supported_schemes()));
    }
}
