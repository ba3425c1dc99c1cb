//! What a VM costs its pool: every request of a controller is recorded on its way there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bioxen_core::ByteSize;
use bioxen_xcp::making::{MakeOrder, NoJournal, WorkerSource, make};
use bioxen_xcp::plan::Deadlines;
use bioxen_xcp::{Care, ConnectedPool, Machine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;
use xenapi_sim::Pool;
use xenapi_sim::guest::ProcessOptions;

use crate::story::{Life, Verb};
use crate::world::{PASSWORD, port, settings};

/// How many calls a VM may cost, from its making to its deletion.
const MOST: usize = 25;

/// What has gone through a connection.
type Sent = Arc<Mutex<Vec<u8>>>;

/// What has gone to a pool, each connection on its own.
#[derive(Clone, Default)]
struct Recording {
    connections: Arc<Mutex<Vec<Sent>>>,
}

impl Recording {
    /// Records what goes through this listener to a pool.
    async fn record(self, listener: TcpListener, to: String) {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&to).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let sent = Arc::new(Mutex::new(Vec::new()));
            self.connections.lock().unwrap().push(Arc::clone(&sent));
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    sent.lock().unwrap().extend_from_slice(&buffer[..count]);
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
        }
    }

    /// The messages that were called, and the files that were sent, with how often each was. Waiting for
    /// events costs nothing while nothing happens, and is shared by all VMs of a controller.
    fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for sent in self.connections.lock().unwrap().iter() {
            let sent = String::from_utf8_lossy(&sent.lock().unwrap()).into_owned();
            let methods = sent.split("\"method\":\"").skip(1);
            let methods = methods.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
            let files = sent.split("PUT /").skip(1);
            let files = files.filter_map(|rest| Some(format!("PUT /{}", rest.split_once('?')?.0)));
            for call in methods.chain(files).filter(|call| call != "event.from") {
                *calls.entry(call).or_default() += 1;
            }
        }
        calls
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_costs_its_pool_few_calls_from_its_making_to_its_deletion() {
    let options = ProcessOptions { ssh_port: Some(port()), ..ProcessOptions::default() };
    let sim = Pool::builder().http().password(PASSWORD).event_batching(Duration::ZERO);
    let sim = sim.process_guests(options).start().await.unwrap();
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), PASSWORD).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let recording = Recording::default();
    let to = sim.url().trim_start_matches("http://").to_owned();
    let recorder = tokio::spawn(recording.clone().record(listener, to));
    let settings = settings(&url, password.path());
    let pool = ConnectedPool::open(&settings, Uuid::from_u128(0xb10), Care::default());
    let pool = pool.await.unwrap();
    let before = recording.calls();
    assert!(before.contains_key("session.login_with_password"), "{before:?}");

    let life = Life {
        name: "frugal".into(),
        full_copy: false,
        memory: Some(ByteSize::gib(3)),
        vcpus: None,
        disk: None,
        networks: 0,
        is_of_fleet: false,
        patience: None,
        verbs: Vec::<Verb>::new(),
        is_deleted: true,
    };
    let order = MakeOrder {
        pool: Arc::clone(&pool),
        spec: life.spec(port()),
        fleet: None,
        run: None,
        worker: WorkerSource::Find,
        journal: Arc::new(NoJournal),
        deadlines: Deadlines::default(),
        report: Arc::new(|_| {}),
    };
    let made = make(order).await.unwrap();
    drop(made);
    let deleted = Machine::find(&pool, "frugal").unwrap().delete().await.unwrap();
    assert_eq!((deleted.disks, deleted.kept), (1, vec![]));
    // It waits until the rows of all tasks have been destroyed.
    pool.close().await.unwrap();
    let mut calls = recording.calls();
    calls.remove("session.logout");
    for (call, count) in before {
        let after = calls.get_mut(&call).unwrap();
        *after -= count;
    }
    calls.retain(|_, count| *count > 0);
    recorder.abort();
    assert!(calls.keys().any(|call| call.starts_with("PUT /")), "no disk was sent: {calls:#?}");
    let sum: usize = calls.values().sum();
    assert!(sum <= MOST, "{sum} calls: {calls:#?}");
}
