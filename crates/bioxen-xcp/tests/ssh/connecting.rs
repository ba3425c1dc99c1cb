//! Who is let in, who is not, and what happens when the other side falls silent.

use std::time::{Duration, Instant};

use bioxen_xcp::ssh::{
    ClientKey, Command as Remote, Connection, Happening, HostKey, HostKeyCheck, Login, Patience,
    SshError, Target,
};
use nix::sys::signal::Signal;
use xenapi::Secret;

use crate::agent::Agent;
use crate::server::server;

const DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_pinned_key_is_accepted_and_the_connection_is_one_for_all_its_clones() {
    let Some(server) = server() else { return };
    let connection = Connection::open(&server.target()).await.unwrap();
    assert_eq!(connection.host_key(), server.host_key());
    let clone = connection.clone();
    let output = clone.run(&Remote::new("id").argument("-un"), "", 100, DEADLINE).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), server.user());
    clone.close().await;
    assert!(connection.is_closed());
    let error = connection.start(&Remote::new("true")).await.err().unwrap();
    assert!(matches!(error, SshError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("we closed it"), "{error}");
}

#[tokio::test]
async fn a_wrong_host_key_is_refused_before_anything_is_sent_and_both_are_shown() {
    let Some(server) = server() else { return };
    let other = HostKey::generate("somebody else").public();
    let login = Login::Password(Secret::from("must not be sent"));
    let target = server.target_with(HostKeyCheck::Pinned(other.clone()), login);
    let error = Connection::open(&target).await.err().unwrap();
    let SshError::WrongHostKey { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!((*expected, *found), (other.fingerprint(), server.host_key().fingerprint()));
    let shown = error.to_string();
    assert!(shown.contains(&expected.to_string()) && shown.contains(&found.to_string()), "{shown}");
    assert!(!error.may_pass());
    let log = server.log();
    assert!(!log.contains("userauth-request"), "{log}");
}

#[tokio::test]
async fn a_key_seen_for_the_first_time_is_handed_to_the_caller_when_asked_for() {
    let Some(server) = server() else { return };
    let login = Login::Key(server.client_key.clone());
    let target = server.target_with(HostKeyCheck::TrustOnFirstUse, login);
    let connection = Connection::open(&target).await.unwrap();
    assert_eq!(connection.host_key(), server.host_key());
}

#[tokio::test]
async fn a_wrong_client_key_is_refused_with_what_would_be_taken() {
    let Some(server) = server() else { return };
    let login = Login::Key(ClientKey::generate("stranger"));
    let check = HostKeyCheck::Pinned(server.host_key().clone());
    let error = Connection::open(&server.target_with(check, login)).await.err().unwrap();
    let SshError::LoginRefused { user, how, offers, .. } = &error else { panic!("{error}") };
    assert_eq!((user.as_str(), offers.as_str()), (server.user(), "publickey"));
    assert!(how.contains("SHA256:"), "{how}");
    assert!(error.hint().contains("authorized_keys"));
}

#[tokio::test]
async fn a_password_is_tried_only_when_given_and_refused_where_it_is_not_taken() {
    let Some(server) = server() else { return };
    let check = HostKeyCheck::Pinned(server.host_key().clone());
    let target = server.target_with(check, Login::Password(Secret::from("hunter2")));
    let error = Connection::open(&target).await.err().unwrap();
    assert!(matches!(error, SshError::LoginRefused { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn nobody_at_the_port_is_said_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let login = Login::Key(ClientKey::generate("test"));
    let target =
        Target::new("127.0.0.1", "nobody", HostKeyCheck::TrustOnFirstUse, login).port(port);
    let error = Connection::open(&target).await.err().unwrap();
    assert!(matches!(error, SshError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")));
}

#[tokio::test]
async fn a_port_that_says_nothing_hits_the_deadline_and_one_that_talks_nonsense_does_not_wait() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let login = Login::Key(ClientKey::generate("test"));
    let patience = Patience { handshake: Duration::from_millis(300), ..Patience::default() };
    let target = Target::new("127.0.0.1", "nobody", HostKeyCheck::TrustOnFirstUse, login)
        .port(port)
        .patience(patience);
    let error = Connection::open(&target).await.err().unwrap();
    let SshError::Timeout { waiting_for, after, .. } = &error else { panic!("{error}") };
    assert_eq!((waiting_for.as_str(), *after), ("its greeting and keys", patience.handshake));
    let (mut first, _) = listener.accept().await.unwrap();
    // The attempt that was given up has closed its end.
    let mut greeting = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut first, &mut greeting).await.unwrap();
    assert!(greeting.starts_with(b"SSH-2.0-"), "{greeting:?}");
    let patience = Patience { handshake: DEADLINE, ..patience };
    let answering = async {
        let (mut second, _) = listener.accept().await.unwrap();
        let nonsense = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut second, nonsense).await.unwrap();
    };
    let target = target.patience(patience);
    let (connected, ()) = tokio::join!(Connection::open(&target), answering);
    let error = connected.err().unwrap();
    assert!(matches!(error, SshError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn an_agent_that_holds_the_key_is_as_good_as_the_key() {
    let Some(server) = server() else { return };
    let check = HostKeyCheck::Pinned(server.host_key().clone());
    let agent = Agent::start(Some(&server.write_key()));
    let target = server.target_with(check.clone(), Login::Agent(Some(agent.socket.clone())));
    Connection::open(&target).await.unwrap();
    let empty = Agent::start(None);
    let target = server.target_with(check.clone(), Login::Agent(Some(empty.socket.clone())));
    let error = Connection::open(&target).await.err().unwrap();
    assert!(error.to_string().contains("it holds no key"), "{error}");
    let target = server.target_with(check, Login::Agent(Some("/no/such/agent".into())));
    let error = Connection::open(&target).await.err().unwrap();
    assert!(error.to_string().contains("/no/such/agent"), "{error}");
}

#[tokio::test]
async fn a_jump_host_leads_to_a_guest_whose_key_is_checked_all_the_same() {
    let (Some(jump), Some(server)) = (server(), server()) else { return };
    let through = Connection::open(&jump.target()).await.unwrap();
    let connection = Connection::open_through(&through, &server.target()).await.unwrap();
    // The way stays open as long as somebody goes through it.
    drop(through);
    assert_eq!(connection.host_key(), server.host_key());
    let output = connection.run(&Remote::new("cat"), "through", 100, DEADLINE).await.unwrap();
    assert_eq!(output.stdout, b"through");
    let through = Connection::open(&jump.target()).await.unwrap();
    let login = Login::Key(server.client_key.clone());
    let wrong = server.target_with(HostKeyCheck::Pinned(jump.host_key().clone()), login);
    let error = Connection::open_through(&through, &wrong).await.err().unwrap();
    assert!(matches!(error, SshError::WrongHostKey { .. }), "{error}");
    let nowhere = server.target().port(1);
    let error = Connection::open_through(&through, &nowhere).await.err().unwrap();
    assert!(matches!(error, SshError::NoWay { .. }) && error.may_pass(), "{error}");
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_at_once_by_all_who_wait() {
    let Some(server) = server() else { return };
    let connection = Connection::open(&server.target()).await.unwrap();
    let mut execution = connection.start(&Remote::new("sleep").argument("60")).await.unwrap();
    let dying = async {
        server.signal_children(Signal::SIGKILL);
    };
    let began = Instant::now();
    let (happened, reason, ()) = tokio::join!(execution.next(), connection.ended(), dying);
    let error = happened.unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }), "{error}");
    assert!(error.may_pass());
    assert!(!reason.is_empty());
    assert!(connection.is_closed());
    assert!(began.elapsed() < connection.patience().silence(), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_within_the_bound() {
    let Some(server) = server() else { return };
    let patience = Patience {
        keepalive: Duration::from_millis(200),
        unanswered: 2,
        answer: Duration::from_secs(30),
        ..Patience::default()
    };
    let connection = Connection::open(&server.target().patience(patience)).await.unwrap();
    let mut execution = connection.start(&Remote::new("sleep").argument("60")).await.unwrap();
    server.signal_children(Signal::SIGSTOP);
    let began = Instant::now();
    let error = execution.next().await.unwrap_err();
    let took = began.elapsed();
    assert!(error.to_string().contains("fallen silent"), "{error}");
    assert!(took <= patience.silence() + Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle_of_an_upload_is_given_up_within_the_bound() {
    let Some(server) = server() else { return };
    let patience = Patience {
        keepalive: Duration::from_millis(200),
        unanswered: 2,
        answer: Duration::from_secs(30),
        ..Patience::default()
    };
    let connection = Connection::open(&server.target().patience(patience)).await.unwrap();
    let execution = connection.start(&Remote::new("cat").argument("-")).await.unwrap();
    let input = execution.input();
    server.signal_children(Signal::SIGSTOP);
    let began = Instant::now();
    let mut failed = None;
    for _ in 0..1000 {
        if let Err(error) = input.write(vec![b'x'; 1 << 20]).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("nobody takes a gigabyte");
    assert!(matches!(error, SshError::Lost { .. }), "{error}");
    let took = began.elapsed();
    assert!(took <= patience.silence() * 2 + Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn a_stalled_server_hits_the_deadline_of_what_is_asked() {
    let Some(server) = server() else { return };
    let patience = Patience { answer: Duration::from_millis(500), ..Patience::default() };
    let connection = Connection::open(&server.target().patience(patience)).await.unwrap();
    server.signal_children(Signal::SIGSTOP);
    let error = connection.start(&Remote::new("true")).await.err().unwrap();
    let SshError::Timeout { waiting_for, after, .. } = &error else { panic!("{error}") };
    assert_eq!((waiting_for.as_str(), *after), ("a channel to open", patience.answer));
    server.signal_children(Signal::SIGCONT);
    // It was only slow: the connection is of use again.
    let patient = connection.run(&Remote::new("echo").argument("back"), "", 100, DEADLINE).await;
    assert_eq!(patient.unwrap().stdout, b"back\n");
}

#[tokio::test]
async fn many_programs_share_one_connection() {
    let Some(server) = server() else { return };
    let connection = Connection::open(&server.target()).await.unwrap();
    let run = |number: u32| {
        let connection = connection.clone();
        async move {
            let command = Remote::new("cat");
            let input = number.to_string();
            let output = connection.run(&command, input.clone(), 100, DEADLINE).await.unwrap();
            assert_eq!(output.stdout, input.as_bytes());
        }
    };
    futures::future::join_all((0..100).map(run)).await;
    // One that talks while nobody listens to it does not keep the others from being ended.
    let mut talker = connection.start(&Remote::new("yes")).await.unwrap();
    assert!(matches!(talker.next().await.unwrap(), Happening::Stdout(_)));
    drop(talker);
    run(7).await;
}
