//! A watch over everything that can happen, on the wire that servers without JSON-RPC have.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use xenapi::class::{self, Class};
use xenapi::enums::VmPowerState;
use xenapi::{AnyRecord, AnyRef, Change, Client, Ref, Secret, Watch, vm};
use xenapi_sim::{Pool, PoolBuilder};

use crate::{MINUTE, pool};

/// Stands before a pool and lets no JSON-RPC through, as hosts that do not have it.
struct OldHost {
    url: String,
    task: JoinHandle<()>,
}

impl Drop for OldHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OldHost {
    async fn before(pool: &Pool) -> Self {
        let to = pool.url().trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(pass(stream, to.clone()));
            }
        });
        Self { url, task }
    }

    fn client(&self) -> Client {
        let builder = Client::builder(&self.url).unwrap();
        builder.login("root", Secret::from("secret")).build()
    }
}

/// Passes requests on and answers back, until either side goes.
async fn pass(mut client: TcpStream, to: String) -> Option<()> {
    let mut server = TcpStream::connect(to).await.ok()?;
    loop {
        let request = message(&mut client).await?;
        if request.starts_with(b"POST /jsonrpc ") {
            let page =
                "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n";
            client.write_all(page.as_bytes()).await.ok()?;
        } else {
            server.write_all(&request).await.ok()?;
            let answer = message(&mut server).await?;
            client.write_all(&answer).await.ok()?;
        }
    }
}

/// A request or an answer with its length in its head, where nothing comes before the one is through.
async fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length = text.split_once("content-length: ").unwrap().1;
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if bytes.len() == head + 4 + length {
            return Some(bytes);
        }
    }
}

/// A pool of some VMs, a client of it that speaks JSON-RPC, and a watch of the VMs over XML-RPC.
async fn watched(builder: PoolBuilder) -> (Pool, Client, OldHost, Watch) {
    let (pool, client) = pool(builder).await;
    let old = OldHost::before(&pool).await;
    let watch = old.client().watch([Class::Vm]).unwrap();
    (pool, client, old, watch)
}

async fn next(watch: &mut Watch) -> Change {
    timeout(MINUTE, watch.next()).await.unwrap().unwrap().unwrap()
}

type There = BTreeMap<Ref<class::Vm>, vm::Record>;

fn told(reference: &AnyRef, record: &AnyRecord) -> (Ref<class::Vm>, vm::Record) {
    let AnyRecord::Vm(record) = record else { panic!("only VMs are watched") };
    (reference.of().unwrap(), (**record).clone())
}

/// All that is told up to where everything has been, and what was told as gone meanwhile.
async fn replay(watch: &mut Watch) -> (There, Vec<String>) {
    let (mut there, mut gone) = (There::new(), Vec::new());
    loop {
        match next(watch).await {
            Change::Replayed => return (there, gone),
            Change::Added(reference, record) | Change::Changed(reference, record) => {
                there.extend([told(&reference, &record)]);
            }
            Change::Removed(reference) => gone.push(reference.to_string()),
        }
    }
}

/// Waits until this VM is told to be so.
async fn until(
    watch: &mut Watch,
    vm: &Ref<class::Vm>,
    is_so: impl Fn(&vm::Record) -> bool,
) -> vm::Record {
    loop {
        if let Change::Added(reference, record) | Change::Changed(reference, record) =
            next(watch).await
        {
            let (reference, record) = told(&reference, &record);
            if reference == *vm && is_so(&record) {
                return record;
            }
        }
    }
}

async fn until_gone(watch: &mut Watch, vm: &Ref<class::Vm>) {
    loop {
        if let Change::Removed(reference) = next(watch).await
            && reference.to_string() == vm.to_string()
        {
            return;
        }
    }
}

fn guest(there: &There) -> Ref<class::Vm> {
    let mut guests = there.iter().filter(|(_, vm)| !vm.is_a_template && !vm.is_control_domain);
    guests.next().unwrap().0.clone()
}

#[tokio::test]
async fn records_over_xml_rpc_are_those_of_json_rpc() {
    let (_pool, client, _old, mut watch) = watched(Pool::builder().vms(5)).await;
    let (there, gone) = replay(&mut watch).await;
    let all = client.vm().get_all_records().await.unwrap();
    assert_eq!((there.len(), gone.len()), (all.len(), 0));
    for (reference, record) in &there {
        assert_eq!(record, all.get(reference).unwrap());
    }
}

#[tokio::test]
async fn changes_and_deletions_are_told_over_xml_rpc() {
    let (pool, client, _old, mut watch) = watched(Pool::builder().vms(2)).await;
    let vm = guest(&replay(&mut watch).await.0);
    client.vm().start(&vm, false, false).await.unwrap();
    let running = |vm: &vm::Record| vm.power_state == VmPowerState::Running;
    until(&mut watch, &vm, running).await;
    let text = "<b> & \"c\" ]]> ü\n";
    client.vm().set_name_description(&vm, text).await.unwrap();
    until(&mut watch, &vm, |vm| vm.name_description == text).await;
    let copy = client.vm().clone(&vm, "copy").await;
    assert_eq!(copy.unwrap_err().code(), Some("VM_BAD_POWER_STATE"));
    client.vm().hard_shutdown(&vm).await.unwrap();
    let copy = client.vm().clone(&vm, "copy").await.unwrap();
    until(&mut watch, &copy, |vm| vm.name_label == "copy").await;
    client.vm().destroy(&copy).await.unwrap();
    until_gone(&mut watch, &copy).await;

    // A deletion that the server forgot before it was heard of.
    client.vm().destroy(&vm).await.unwrap();
    pool.lose_events();
    let other = guest(&client.vm().get_all_records().await.unwrap().into());
    client.vm().set_name_description(&other, "something happens").await.unwrap();
    until_gone(&mut watch, &vm).await;
}

#[tokio::test]
async fn lost_sessions_and_a_restarted_toolstack_are_survived_over_xml_rpc() {
    let (pool, client, _old, mut watch) = watched(Pool::builder().vms(3)).await;
    let vm = guest(&replay(&mut watch).await.0);
    for lose in [Pool::lose_sessions, Pool::restart_toolstack] {
        let copy = client.vm().clone(&vm, "copy").await.unwrap();
        lose(&pool);
        let (there, _) = replay(&mut watch).await;
        assert!(there.contains_key(&copy));
        assert_eq!(there.len(), client.vm().get_all().await.unwrap().len());
    }
}
