//! Guests are reached by way of the pool's jump host, which must show its key.

use bioxen_xcp::making::{Cause, make};
use bioxen_xcp::plan::StepKind;
use bioxen_xcp::ssh::{ClientKey, SshError};
use bioxen_xcp::{GuestSettings, Identity, Jump, Machine};

use crate::lab::Lab;
use crate::server::{Server, server};

fn jump(server: &Server) -> Jump {
    let place = format!("{}@127.0.0.1:{}", server.user(), server.port());
    Jump {
        place: place.parse().unwrap(),
        host_key: server.host_key().clone(),
        identity: Identity::File(server.write_key()),
    }
}

async fn lab(jump: Jump) -> Lab {
    Lab::with(GuestSettings { jump: Some(jump), ..GuestSettings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_made_by_way_of_one_connection_to_the_jump_host() {
    let Some(server) = server() else { return };
    let lab = lab(jump(&server)).await;
    let making = ["one", "two"].map(|name| make(lab.order(lab.spec(name))));
    for made in futures::future::join_all(making).await {
        let made = made.unwrap();
        let (address, _) = made.known.address.unwrap();
        let log = server.log();
        let address = address.to_string();
        let led = |line: &str| line.contains("direct") && line.contains(&address);
        assert!(log.lines().any(led), "{log}");
        assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    }
    for name in ["one", "two"] {
        Machine::find(&lab.pool, name).unwrap().delete().await.unwrap();
    }
    lab.pool.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_host_that_is_not_who_it_should_be_is_not_gone_by() {
    let Some(server) = server() else { return };
    let wrong = Jump { host_key: ClientKey::generate("other").public(), ..jump(&server) };
    let keyless = Jump { identity: Identity::File("/no/such/key".into()), ..jump(&server) };
    for jump in [wrong, keyless] {
        let lab = lab(jump.clone()).await;
        let before = lab.ours().await;
        let error = make(lab.order(lab.spec("gc"))).await.unwrap_err();
        assert_eq!(error.step, Some(StepKind::Ssh));
        let Cause::Ssh(cause) = *error.cause else { panic!("{:?}", error.cause) };
        let SshError::Jump { source } = *cause else { panic!("{cause:?}") };
        match *source {
            SshError::WrongHostKey { found, expected, .. } => {
                assert_eq!(found, server.host_key().fingerprint());
                assert_eq!(expected, jump.host_key.fingerprint());
            }
            SshError::Identity { path, .. } => assert_eq!(path.to_str(), Some("/no/such/key")),
            other => panic!("{other:?}"),
        }
        assert_eq!(lab.ours().await, before);
        assert!(!server.log().contains("Accepted publickey"));
    }
}
