//! Questions that share connections: who gets which answer, and what becomes of those that get none.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::{Received, Reply, Server, http, result};
use xenapi::{Client, Error, Ref, Secret, class};

const QUESTION: &str = "VM.get_name_label";
/// So many questions at a time have a connection to themselves.
const ALONE: usize = 2;
/// So many share one.
const DEPTH: usize = 16;

/// The number of the VM that the call is about.
fn number(call: &Received) -> usize {
    let start = call.body.find("vm-").unwrap() + "vm-".len();
    call.body[start..start + 3].parse().unwrap()
}

fn vm(number: usize) -> Ref<class::Vm> {
    Ref::from(format!("vm-{number:03}").as_str())
}

/// The answer to what a VM is called: its number.
fn name(number: usize) -> Vec<u8> {
    let body = format!(r#"{{"jsonrpc":"2.0","result":"{number}","id":1}}"#);
    http("200 OK", "application/json", &body)
}

/// A client of a server that answers questions by this rule, with as many kept connections as there are
/// questions that go alone, and one more.
async fn connect(
    reply: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
) -> (Server, Client) {
    let server = Server::start(move |call| match call.method() {
        QUESTION if number(call) != 999 => reply(call, number(call)),
        QUESTION => Reply::Send(name(999)),
        "VM.get_all" => result("[]"),
        _ => result("\"OpaqueRef:s\""),
    })
    .await;
    let builder = Client::builder(&server.url()).unwrap();
    let client = builder.login("root", Secret::from("secret")).connect().await.unwrap();
    ask(&client, [999; ALONE + 1]).await;
    assert_eq!(server.connections(), ALONE + 1);
    (server, client)
}

/// Asks for the names of all of these at once; the outcomes stand in the order of the questions.
async fn ask(
    client: &Client,
    numbers: impl IntoIterator<Item = usize>,
) -> Vec<Result<String, Error>> {
    let mut asking = JoinSet::new();
    for (place, number) in numbers.into_iter().enumerate() {
        let client = client.clone();
        asking.spawn(async move { (place, client.vm().get_name_label(&vm(number)).await) });
    }
    let mut outcomes = asking.join_all().await;
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn assert_right(outcomes: &[Result<String, Error>]) {
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.as_ref().unwrap(), &number.to_string());
    }
}

#[tokio::test]
async fn many_questions_at_once_share_a_connection_and_each_gets_its_answer() {
    let (server, client) = connect(|_, number| Reply::Send(name(number))).await;
    for _ in 0..3 {
        assert_right(&ask(&client, 0..ALONE + DEPTH).await);
    }
    assert_eq!(server.connections(), ALONE + 1);
    // One more is too many for the connections that there are.
    assert_right(&ask(&client, 0..=ALONE + DEPTH).await);
    assert_eq!(server.connections(), ALONE + 2);
}

#[tokio::test]
async fn what_may_take_its_time_shares_nothing() {
    let (server, client) = connect(|_, number| Reply::Send(name(number))).await;
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        asking.spawn(async move { client.vm().get_all().await.unwrap() });
    }
    asking.join_all().await;
    assert_eq!(server.connections(), 8);
}

#[tokio::test]
async fn a_shared_connection_that_is_cut_at_any_byte_costs_one_more_question_at_most() {
    let answer = name(0).len();
    // Where in the row of those that share, and after how many bytes of the answer.
    for (victim, length) in [ALONE, ALONE + 2, ALONE + 4]
        .into_iter()
        .flat_map(|victim| (0..=answer).map(move |length| (victim, length)))
    {
        let cut = Arc::new(Mutex::new(HashSet::from([victim])));
        let (server, client) = connect(move |_, number| {
            if cut.lock().unwrap().remove(&number) {
                Reply::SendAndClose(name(number)[..length].to_vec())
            } else {
                Reply::Send(name(number))
            }
        })
        .await;
        assert_right(&ask(&client, 0..ALONE + 5).await);
        let asked = server.count(QUESTION) - (ALONE + 1);
        // Those behind it never came to the server over that connection.
        assert_eq!(asked, ALONE + 5 + usize::from(length < answer), "{victim} at {length}");
    }
}

#[tokio::test]
async fn a_server_that_closes_every_connection_is_asked_once_for_each_answer() {
    let closing = |number| {
        let answer = String::from_utf8(name(number)).unwrap();
        Reply::SendAndClose(answer.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").into())
    };
    let (server, client) = connect(move |_, number| closing(number)).await;
    for round in 1..=3 {
        assert_right(&ask(&client, 0..8).await);
        assert_eq!(server.count(QUESTION) - (ALONE + 1), 8 * round);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_to_who_asked_for_it_and_the_others_are_answered() {
    let (server, client) = connect(|_, number| match number {
        4 => Reply::Send(b"SSH-2.0-OpenSSH_9.2\r\n".into()),
        _ => Reply::Send(name(number)),
    })
    .await;
    let mut outcomes = ask(&client, 0..8).await;
    let error = outcomes.remove(4).unwrap_err();
    assert!(matches!(error, Error::Transport { sent: true, .. }), "{error:?}");
    let names: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(names, ["0", "1", "2", "3", "5", "6", "7"]);
    assert!(server.count(QUESTION) - (ALONE + 1) > 8, "it was asked once more");
}

#[tokio::test]
async fn a_question_that_is_given_up_leaves_the_others_their_answers() {
    let gate = Arc::new(Notify::new());
    let closed = Arc::clone(&gate);
    let (server, client) = connect(move |_, number| {
        let gate = Arc::clone(&closed);
        match number {
            4 => Reply::Later(Box::pin(async move {
                gate.notified().await;
                name(4)
            })),
            _ => Reply::Send(name(number)),
        }
    })
    .await;
    let mut asking = JoinSet::new();
    for number in [0, 1, 2, 3, 5, 6] {
        let question = client.vm().get_name_label(&vm(number)).into_future();
        // Some are on their way when it comes, and some come after it.
        if number == 5 {
            let impatient = client.vm().get_name_label(&vm(4)).timeout(Duration::from_millis(50));
            let gate = Arc::clone(&gate);
            asking.spawn(async move {
                let outcome = impatient.await;
                gate.notify_one();
                (4, outcome)
            });
        }
        asking.spawn(async move { (number, question.await) });
    }
    for (number, outcome) in asking.join_all().await {
        match outcome {
            Ok(name) => assert_eq!(name, number.to_string()),
            Err(error) => {
                assert!(number == 4 && matches!(error, Error::Timeout { .. }), "{error:?}");
            }
        }
    }
    // Nothing was asked twice for it, and what comes next is answered as it should be.
    assert_eq!(server.count(QUESTION), 7 + ALONE + 1);
    assert_right(&ask(&client, 0..4).await);
}
