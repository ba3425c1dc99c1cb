//! Tasks, events, sessions, faults, and state that outlives the process.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, LIMIT, pool, raw};
use xenapi_sim::{Fault, FaultRule, Pool, Role};

#[tokio::test]
async fn a_task_tells_its_result_as_xml_and_can_be_destroyed_while_it_runs() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let template =
        client.ok("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await[0].clone();
    let task = client.text("Async.VM.clone", json!([template, "made"])).await;
    let record = client.wait(&task).await;
    assert_eq!((&record["status"], &record["progress"]), (&json!("success"), &json!(1.0)));
    let made = client.ok("VM.get_by_name_label", json!(["made"])).await[0].clone();
    assert_eq!(record["result"], format!("<value>{}</value>", made.as_str().unwrap()));
    assert_eq!(record["name_label"], "Async.VM.clone");
    assert_eq!(record["allowed_operations"], json!([]));
    let none = client.fails("task.cancel", json!([task])).await;
    assert_eq!(none[0], "OPERATION_NOT_ALLOWED");
    client.ok("task.destroy", json!([task])).await;
    assert_eq!(
        client.fails("task.get_status", json!([task])).await,
        ["HANDLE_INVALID", "task", &task]
    );

    pool.set_latency("VM.clone", Duration::from_millis(200));
    let task = client.text("Async.VM.clone", json!([template, "unseen"])).await;
    client.ok("task.destroy", json!([task])).await;
    assert_eq!(client.ok("task.get_status", json!([task])).await, "pending");
    let mut token = String::new();
    while client.call("task.get_status", json!([task])).await.is_ok() {
        let batch = client.ok("event.from", json!([["task"], token, 5.0])).await;
        batch["token"].as_str().unwrap().clone_into(&mut token);
    }
    assert_eq!(
        client.ok("VM.get_by_name_label", json!(["unseen"])).await.as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_failure_of_a_task_comes_in_its_error_info() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let task = client.text("Async.VM.start", json!(["OpaqueRef:none", false, false])).await;
    let record = client.wait(&task).await;
    assert_eq!(record["status"], "failure");
    assert_eq!(record["error_info"], json!(["HANDLE_INVALID", "VM", "OpaqueRef:none"]));
    assert_eq!(record["result"], "");
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn told(batch: &Value) -> Vec<(String, String)> {
    let events = batch["events"].as_array().unwrap().iter();
    let pair = |event: &Value| {
        (
            event["class"].as_str().unwrap().to_owned(),
            event["operation"].as_str().unwrap().to_owned(),
        )
    };
    events.map(pair).collect()
}

#[tokio::test]
async fn events_tell_each_object_once_with_its_newest_record() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let all = client.ok("event.from", json!([["vm", "SR"], "", 0.1])).await;
    let vms = client.ok("VM.get_all", json!([])).await.as_array().unwrap().len();
    assert_eq!(all["valid_ref_counts"]["vm"], vms);
    assert_eq!(told(&all).iter().filter(|it| **it == ("vm".into(), "add".into())).count(), vms);
    let token = all["token"].clone();
    assert_eq!(token.as_str().unwrap().len(), 41);
    let vm = client.new_vm("seen").await;
    client.ok("VM.set_name_description", json!([vm, "one"])).await;
    client.ok("VM.set_name_description", json!([vm, "two"])).await;
    let batch = client.ok("event.from", json!([["VM"], token, 5.0])).await;
    let events = batch["events"].as_array().unwrap();
    let mine: Vec<_> = events.iter().filter(|event| event["ref"] == vm).collect();
    assert_eq!(mine.len(), 1);
    assert_eq!(mine[0]["operation"], "add");
    assert_eq!(mine[0]["snapshot"]["name_description"], "two");
    let token = batch["token"].clone();
    client.ok("VM.destroy", json!([vm])).await;
    let batch = client.ok("event.from", json!([["VM"], token, 5.0])).await;
    let gone = batch["events"].as_array().unwrap().iter().find(|event| event["ref"] == vm).unwrap();
    assert_eq!(gone["operation"], "del");
    assert_eq!(gone.get("snapshot"), None);
    let quiet = client.ok("event.from", json!([["VM"], batch["token"], 0.05])).await;
    assert_eq!(quiet["events"], json!([]));
}

#[tokio::test]
async fn whoever_waits_for_events_is_woken_by_a_change() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let token = client.ok("event.from", json!([["network"], "", 0.1])).await["token"].clone();
    let network = client.ok("network.get_all", json!([])).await[0].clone();
    let waiter = Client::login(&pool).await;
    let waiting =
        tokio::spawn(
            async move { waiter.ok("event.from", json!([["network"], token, 30.0])).await },
        );
    let injected = client.text("event.inject", json!(["network", network])).await;
    let batch = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap();
    assert_eq!(told(&batch), [("network".into(), "mod".into())]);
    assert!(batch["token"].as_str().unwrap() > injected.as_str());
    let unknown = client.fails("event.inject", json!(["network", "OpaqueRef:none"])).await;
    assert_eq!(unknown, ["HANDLE_INVALID", "network", "OpaqueRef:none"]);
    let broken = client.fails("event.from", json!([["vm/a/b"], "", 1.0])).await;
    assert_eq!(broken, ["EVENT_SUBSCRIPTION_PARSE_FAILURE", "vm/a/b"]);
    assert_eq!(
        client.fails("event.from", json!([["vm"], "x", 1.0])).await,
        ["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"]
    );
}

#[tokio::test]
async fn a_logout_wakes_whoever_waits_with_that_session() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let token = client.ok("event.from", json!([["*"], "", 0.1])).await["token"].clone();
    let waiter = Client::login(&pool).await;
    let session = waiter.session.clone();
    let waiting =
        tokio::spawn(
            async move { waiter.call("event.from", json!([["secret"], token, 30.0])).await },
        );
    client.plain("session.logout", json!([session])).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err(), ["SESSION_INVALID", &session]);
}

#[tokio::test]
async fn sessions_end_with_time_and_with_too_many_of_them() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    pool.clock().advance(Duration::from_hours(23));
    client.ok("pool.get_all", json!([])).await;
    pool.clock().advance(Duration::from_hours(23));
    client.ok("pool.get_all", json!([])).await;
    pool.clock().advance(Duration::from_hours(25));
    assert_eq!(client.fails("pool.get_all", json!([])).await, ["SESSION_INVALID", &client.session]);
    let oldest = Client::login(&pool).await;
    for _ in 0..500 {
        Client::login(&pool).await;
    }
    assert_eq!(oldest.fails("pool.get_all", json!([])).await[0], "SESSION_INVALID");
}

#[tokio::test]
async fn roles_decide_what_users_may_do() {
    let builder = Pool::builder().http().seed(1).user("viewer", "v", Role::ReadOnly);
    let pool = builder.user("operator", "o", Role::VmOperator).start().await.unwrap();
    let root = Client::login(&pool).await;
    let vm = root.new_vm("guarded").await;
    let viewer = Client::login_as(&pool.url(), "viewer", "v").await.unwrap();
    viewer.ok("VM.get_record", json!([vm])).await;
    let denied = viewer.fails("VM.start", json!([vm, false, false])).await;
    assert_eq!(denied[..2], ["RBAC_PERMISSION_DENIED", "vm.start"]);
    let operator = Client::login_as(&pool.url(), "operator", "o").await.unwrap();
    operator.ok("VM.start", json!([vm, false, false])).await;
    assert_eq!(operator.fails("VM.destroy", json!([vm])).await[0], "RBAC_PERMISSION_DENIED");
}

#[tokio::test]
async fn members_send_callers_to_the_master() {
    let pool = Pool::builder().http().seed(1).hosts(2).start().await.unwrap();
    let urls = pool.urls();
    let failure = Client::login_as(&urls[1], "root", pool.password()).await.err().unwrap();
    assert_eq!(failure, ["HOST_IS_SLAVE", "127.0.0.1"]);
    let client = Client::login(&pool).await;
    let hosts = client.ok("host.get_all_records", json!([])).await;
    let member =
        hosts.as_object().unwrap().iter().find(|(_, host)| host["address"] == "127.0.0.2").unwrap();
    client.ok("pool.designate_new_master", json!([member.0])).await;
    let failure = Client::login_as(&urls[0], "root", pool.password()).await.err().unwrap();
    assert_eq!(failure, ["HOST_IS_SLAVE", "127.0.0.2"]);
    Client::login_as(&urls[1], "root", pool.password()).await.unwrap();
}

#[tokio::test]
async fn faults_strike_as_often_as_they_are_told_to() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    pool.fail_next("pool.get_all", "HOST_STILL_BOOTING", &[]);
    assert_eq!(client.fails("pool.get_all", json!([])).await, ["HOST_STILL_BOOTING"]);
    client.ok("pool.get_all", json!([])).await;
    let network = client.ok("network.get_all", json!([])).await[0].clone();
    for (fault, effect) in
        [(Fault::DropBefore, false), (Fault::DropAfter, true), (Fault::CutAfter(40), true)]
    {
        pool.fault(FaultRule::new("network.*", fault).times(1));
        let name = format!("renamed {effect}");
        let failure = client.fails("network.set_name_label", json!([network, name])).await;
        assert_eq!(failure, ["(the connection ended)"]);
        let now = client.text("network.get_name_label", json!([network])).await;
        assert_eq!(now == name, effect);
        client.ok("network.set_name_label", json!([network, ""])).await;
    }
    pool.fault(FaultRule::new("VM.get_all", Fault::Garbage).times(1));
    let body =
        json!({"jsonrpc": "2.0", "method": "VM.get_all", "params": [client.session], "id": 1})
            .to_string();
    let garbage = raw(&pool.url(), &support::post("/jsonrpc", &body)).await.unwrap();
    assert!(serde_json::from_slice::<Value>(&garbage.body).is_err());
}

#[tokio::test]
async fn faults_are_ordered_over_http_too() {
    let pool = Pool::builder().http().seed(1).password("s3cret").start().await.unwrap();
    let client = Client::login(&pool).await;
    let request = support::as_root;
    let refused = raw(&pool.url(), &support::post("/_sim/sessions/lose", "{}")).await.unwrap();
    assert_eq!(refused.status, 401);
    let rule = r#"{"call": "VM.get_all", "fault": {"error": ["SR_FULL", "1", "2"]}, "times": 1}"#;
    let added = raw(&pool.url(), request("POST", "/_sim/faults", rule).as_bytes()).await.unwrap();
    assert_eq!(added.json(), json!({"id": 1}));
    assert_eq!(client.fails("VM.get_all", json!([])).await, ["SR_FULL", "1", "2"]);
    let left = raw(&pool.url(), request("GET", "/_sim/faults", "").as_bytes()).await.unwrap();
    assert_eq!(left.json(), json!([]));
    let wrong =
        raw(&pool.url(), request("POST", "/_sim/faults", "{\"x\": 1}").as_bytes()).await.unwrap();
    assert_eq!(wrong.status, 400);
    let lost = raw(&pool.url(), request("POST", "/_sim/toolstack/restart", "").as_bytes()).await;
    assert!(lost.is_none_or(|answer| answer.status == 200));
    assert_eq!(client.fails("VM.get_all", json!([])).await[0], "SESSION_INVALID");
    let summary = raw(&pool.url(), request("GET", "/_sim", "").as_bytes()).await.unwrap().json();
    assert_eq!(summary["guests"], "none");
}

#[tokio::test]
async fn a_pool_of_many_vms_is_answered_whole_on_both_wires() {
    let pool = Pool::builder().http().seed(1).vms(300).start().await.unwrap();
    let client = Client::login(&pool).await;
    let records = client.ok("VM.get_all_records", json!([])).await;
    assert_eq!(records.as_object().unwrap().len(), 300 + 11 + 1);
    let body = format!(
        "<methodCall><methodName>VM.get_all_records</methodName><params><param><value>{}</value></param></params></methodCall>",
        client.session
    );
    let answer = raw(&pool.url(), &support::post("/", &body)).await.unwrap().text();
    assert_eq!(answer.matches("<name>power_state</name>").count(), 300 + 11 + 1);
    assert!(answer.ends_with("</methodResponse>"));
    let batch = client.ok("event.from", json!([["vm"], "", 0.1])).await;
    assert_eq!(batch["events"].as_array().unwrap().len(), 300 + 11 + 1);
}

#[tokio::test]
async fn metrics_are_answered_by_time() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("measured").await;
    client.ok("VM.start", json!([vm, false, false])).await;
    let uuid = client.text("VM.get_uuid", json!([vm])).await;
    let request = |rest: &str| {
        format!(
            "GET /rrd_updates?start=-100&host=true{rest} HTTP/1.1\r\nCookie: session_id={}\r\n\r\n",
            client.session
        )
    };
    let answer =
        raw(&pool.url(), request("&json=true&cf=AVERAGE").as_bytes()).await.unwrap().json();
    let legend = answer["meta"]["legend"].as_array().unwrap();
    assert!(legend.contains(&json!(format!("AVERAGE:vm:{uuid}:cpu0"))), "{legend:?}");
    assert_eq!(answer["meta"]["step"], 5);
    let rows = answer["data"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    assert!(rows[0]["t"].as_i64() > rows[1]["t"].as_i64());
    let answer = raw(&pool.url(), request("").as_bytes()).await.unwrap();
    assert!(answer.text().contains("<xport>"));
}
