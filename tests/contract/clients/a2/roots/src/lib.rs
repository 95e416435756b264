//! The roots that a client trusts: the authority that `SSL_CERT_FILE` names, and no other.

use pki_types::pem::PemObject;
use pki_types::{CertificateDer, TrustAnchor};
use std::sync::OnceLock;

/// What `webpki-roots` has under this name, read when it is first asked for.
pub static TLS_SERVER_ROOTS: Roots = Roots;

pub struct Roots;

impl Roots {
    pub fn iter(&self) -> std::slice::Iter<'static, TrustAnchor<'static>> {
        static READ: OnceLock<Vec<TrustAnchor<'static>>> = OnceLock::new();
        READ.get_or_init(read).iter()
    }
}

fn read() -> Vec<TrustAnchor<'static>> {
    let file = std::env::var("SSL_CERT_FILE").expect("SSL_CERT_FILE names the authority");
    CertificateDer::pem_file_iter(file)
        .expect("the authority's file can be read")
        .map(|found| {
            let certificate = found.expect("the file holds certificates in PEM");
            webpki::anchor_from_trusted_cert(&certificate)
                .expect("the certificate is an authority's")
                .to_owned()
        })
        .collect()
}
