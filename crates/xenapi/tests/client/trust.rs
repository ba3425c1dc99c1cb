//! Whom a client trusts: nobody by itself, then whom it was told.

use std::sync::Arc;

use crate::support::{Server, result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use xenapi::{Client, Error, Fingerprint, Secret, TlsError, Trust};

struct Identity {
    acceptor: TlsAcceptor,
    fingerprint: Fingerprint,
    pem: String,
}

fn identity(
    certificate: &CertificateDer<'static>,
    pem: String,
    key: &KeyPair,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Identity {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    Identity { acceptor: Arc::new(config).into(), fingerprint: Fingerprint::of(certificate), pem }
}

/// A self-signed certificate, as hosts have when they are new.
fn self_signed(versions: &[&'static rustls::SupportedProtocolVersion]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["xcp-01".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    identity(certificate.der(), certificate.pem(), &key, versions)
}

/// A certificate for this name by an authority, whose own certificate is the PEM.
fn signed(name: &str) -> Identity {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    identity(certificate.der(), authority.pem(), &key, rustls::ALL_VERSIONS)
}

async fn start(identity: &Identity) -> Server {
    let address = "127.0.0.1:0".parse().unwrap();
    Server::start_at(address, Some(identity.acceptor.clone()), |_| result("\"OpaqueRef:s\"")).await
}

async fn connect(server: &Server, trust: Trust) -> Result<Client, TlsError> {
    let builder = Client::builder(&server.url()).unwrap().trust(trust);
    match builder.login("root", Secret::from("secret")).connect().await {
        Ok(client) => Ok(client),
        Err(Error::Tls { source, .. }) => Err(source),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn without_trust_the_error_tells_the_fingerprint_to_pin() {
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let host = self_signed(versions);
        let server = start(&host).await;
        let error = connect(&server, Trust::none()).await.unwrap_err();
        assert!(matches!(error, TlsError::Unknown { .. }), "{error:?}");
        let found = *error.found().unwrap();
        assert_eq!(found, host.fingerprint);
        connect(&server, Trust::fingerprint(found)).await.unwrap();
        assert_eq!(server.calls().first().unwrap(), "session.login_with_password");
    }
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_told_with_both_fingerprints() {
    let host = self_signed(rustls::ALL_VERSIONS);
    let server = start(&host).await;
    let pinned = Fingerprint::of(b"another");
    let error = connect(&server, Trust::fingerprint(pinned)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&pinned.to_string()) && text.contains(&host.fingerprint.to_string()));
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_pin_of_each_host_lets_one_client_speak_to_all() {
    let (one, other) = (self_signed(rustls::ALL_VERSIONS), self_signed(rustls::ALL_VERSIONS));
    let trust = Trust::fingerprint(one.fingerprint).and(Trust::fingerprint(other.fingerprint));
    connect(&start(&one).await, trust.clone()).await.unwrap();
    connect(&start(&other).await, trust).await.unwrap();
}

#[tokio::test]
async fn an_authority_speaks_for_the_name_it_signed() {
    let host = signed("127.0.0.1");
    let trust = Trust::certificates(host.pem.as_bytes()).unwrap();
    connect(&start(&host).await, trust).await.unwrap();
    let host = signed("127.0.0.77");
    let trust = Trust::certificates(host.pem.as_bytes()).unwrap();
    let error = connect(&start(&host).await, trust).await.unwrap_err();
    let TlsError::Rejected { found, .. } = error else { panic!("{error:?}") };
    assert_eq!(found, host.fingerprint);
}

#[tokio::test]
async fn an_authority_does_not_speak_for_strangers() {
    let trust = Trust::certificates(signed("127.0.0.1").pem.as_bytes()).unwrap();
    let error = connect(&start(&signed("127.0.0.1")).await, trust).await.unwrap_err();
    assert!(matches!(error, TlsError::Rejected { .. }), "{error:?}");
}

#[tokio::test]
async fn a_hosts_own_certificate_can_be_given_instead_of_an_authoritys() {
    let host = self_signed(rustls::ALL_VERSIONS);
    let trust = Trust::certificates(host.pem.as_bytes()).unwrap();
    connect(&start(&host).await, trust).await.unwrap();
}

#[tokio::test]
async fn a_port_without_tls_is_told() {
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", plain.local_addr().unwrap());
    let closing = tokio::spawn(async move { drop(plain.accept().await.unwrap()) });
    let builder = Client::builder(&url).unwrap().trust(Trust::none());
    let error = builder.login("root", Secret::from("secret")).connect().await.unwrap_err();
    let handshake = matches!(&error, Error::Tls { source: TlsError::Handshake(_), .. });
    assert!(handshake, "{error:?}");
    closing.await.unwrap();
}

#[test]
fn what_is_no_pem_is_refused() {
    assert!(Trust::certificates(b"").is_err());
    assert!(Trust::certificates(b"-----BEGIN CERTIFICATE-----\nnonsense").is_err());
}
