//! What goes over the wire: both protocols, all their failures, and HTTP itself.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Client, LIMIT, address, pool, post, raw};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn xml_call(method: &str, params: &[&str]) -> Vec<u8> {
    let params: Vec<String> =
        params.iter().map(|it| format!("<param><value>{it}</value></param>")).collect();
    let params = params.concat();
    let body = format!(
        "<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
    );
    post("/", &body)
}

#[tokio::test]
async fn json_rpc_answers_in_the_version_of_the_call() {
    let pool = pool().await;
    let one = json!({"method": "session.login_with_password", "params": ["root", "no"], "id": "a"});
    let answer = raw(&pool.url(), &post("/jsonrpc", &one.to_string())).await.unwrap();
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("*"));
    let answer = answer.json();
    assert_eq!(answer["result"], json!(null));
    assert_eq!(answer["error"][0], "SESSION_AUTHENTICATION_FAILED");
    assert_eq!(answer["error"][1], "root");
    assert_eq!(answer["id"], "a");
    let two = json!({"jsonrpc": "2.0", "method": "session.login_with_password", "params": ["root", "no"], "id": 3});
    let answer = raw(&pool.url(), &post("/jsonrpc", &two.to_string())).await.unwrap().json();
    assert_eq!(answer.get("result"), None);
    assert_eq!(answer["error"]["code"], 1);
    assert_eq!(answer["error"]["message"], "SESSION_AUTHENTICATION_FAILED");
    assert_eq!(answer["id"], 3);
}

#[tokio::test]
async fn xml_rpc_is_answered_on_every_path_with_untyped_numbers() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    for path in ["/", "/RPC2", "/xmlrpc", "/json", "/anything/else"] {
        let call =
            String::from_utf8(xml_call("host_get_API_version_major", &[&client.session, "x"]))
                .unwrap();
        let answer = raw(&pool.url(), call.replace("POST /", &format!("POST {path}")).as_bytes())
            .await
            .unwrap();
        assert_eq!(answer.header("content-type").as_deref(), Some("text/xml"), "{path}");
        assert!(answer.text().contains("<value>Failure</value>"), "{}", answer.text());
        assert!(answer.text().contains("HANDLE_INVALID"));
    }
    let host = client.ok("host.get_all", json!([])).await[0].as_str().unwrap().to_owned();
    let answer =
        raw(&pool.url(), &xml_call("host.get_API_version_major", &[&client.session, &host]))
            .await
            .unwrap();
    assert!(answer.text().contains("<name>Value</name><value>2</value>"), "{}", answer.text());
    let answer =
        raw(&pool.url(), &xml_call("host.get_enabled", &[&client.session, &host])).await.unwrap();
    assert!(answer.text().contains("<value><boolean>1</boolean></value>"));
    let names = raw(&pool.url(), &xml_call("system.listMethods", &[])).await.unwrap().text();
    assert!(!names.contains("Status") && names.contains("<value>VM.start</value>"));
}

#[tokio::test]
async fn what_is_no_call_is_answered_500_with_a_page() {
    let pool = pool().await;
    for request in [
        post("/jsonrpc", "{"),
        post("/jsonrpc", r#"{"method": "a.b", "params": [], "id": null}"#),
        post("/jsonrpc", r#"{"method": "a.b", "params": {}, "id": 1}"#),
        post("/", "<methodCall>"),
        b"POST /jsonrpc HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        b"POST /jsonrpc HTTP/1.1\r\nContent-Length: 400000\r\n\r\n".to_vec(),
    ] {
        let answer = raw(&pool.url(), &request).await.unwrap();
        assert_eq!(answer.status, 500);
        assert_eq!(answer.header("content-type").as_deref(), Some("text/html"));
        assert!(answer.text().contains("Additional information"));
    }
}

#[tokio::test]
async fn verbs_and_paths_are_answered_as_by_the_server() {
    let pool = pool().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 404),
        ("GET /nothing HTTP/1.1\r\n\r\n", 403),
        ("PUT /nothing HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 403),
        ("BREW / HTTP/1.1\r\n\r\n", 501),
        ("OPTIONS /jsonrpc HTTP/1.1\r\n\r\n", 200),
        ("GET /rrd_updates?start=0 HTTP/1.1\r\n\r\n", 401),
    ] {
        assert_eq!(raw(&pool.url(), request.as_bytes()).await.unwrap().status, status, "{request}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_calls_and_http_1_0_only_one() {
    let pool = pool().await;
    let mut stream = TcpStream::connect(support::address(&pool.url())).await.unwrap();
    let body = json!({"jsonrpc": "2.0", "method": "system.listMethods", "id": 1}).to_string();
    for _ in 0..3 {
        let answer = support::exchange(&mut stream, &post("/jsonrpc", &body)).await.unwrap();
        assert!(answer.json()["result"].as_array().unwrap().len() > 2000);
        assert_eq!(answer.header("connection").as_deref(), Some("keep-alive"));
    }
    let old = String::from_utf8(post("/jsonrpc", &body)).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let answer = support::exchange(&mut stream, old.as_bytes()).await.unwrap();
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    assert!(support::exchange(&mut stream, &post("/jsonrpc", &body)).await.is_none());
}

#[tokio::test]
async fn methods_sessions_counts_and_types_are_checked_in_this_order() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let plain = async |method: &str, params| client.plain(method, params).await.unwrap_err();
    assert_eq!(plain("VM.fly", json!([])).await, ["MESSAGE_METHOD_UNKNOWN", "VM.fly"]);
    assert_eq!(plain("VM.fly", json!(["x"])).await, ["SESSION_INVALID", "x"]);
    assert_eq!(
        plain("Async.VM.fly", json!([client.session])).await,
        ["MESSAGE_METHOD_UNKNOWN", "VM.fly"]
    );
    let counted = ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "1"];
    assert_eq!(plain("Async.VM.start", json!(["x", "y"])).await, counted);
    assert_eq!(plain("VM.start", json!(["x", "y", false, false])).await, ["SESSION_INVALID", "x"]);
    let wrong = client.fails("VM.start", json!(["y", "false", false])).await;
    assert_eq!(wrong[0], "INTERNAL_ERROR");
    let vm = client.fails("VM.start", json!(["y", false, false])).await;
    assert_eq!(vm, ["HANDLE_INVALID", "VM", "y"]);
    assert_eq!(
        client.fails("VM.snapshot_with_quiesce", json!([NULL, "x"])).await,
        ["MESSAGE_REMOVED"]
    );
    assert_eq!(
        client.fails("VM.import_convert", json!(["a", "b", "c", NULL, {}])).await,
        ["NOT_IMPLEMENTED", "VM.import_convert"]
    );
    assert_eq!(client.fails("Async.VM.get_all", json!([])).await[0], "Fault");
    assert_eq!(client.fails("VM.create", json!([{}])).await[0], "INTERNAL_ERROR");
}

use support::NULL;

#[tokio::test]
async fn every_class_that_is_listed_answers_with_its_records() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let names = client.plain("system.listMethods", json!([])).await.unwrap();
    let lists = names.as_array().unwrap().iter().filter_map(|it| it.as_str());
    let lists: Vec<&str> = lists.filter(|it| it.ends_with(".get_all_records")).collect();
    assert!(lists.len() > 50, "{}", lists.len());
    for name in lists {
        match client.call(name, json!([])).await {
            Ok(records) => assert!(records.is_object(), "{name}"),
            Err(failure) => assert_eq!(failure, ["MESSAGE_REMOVED"], "{name}"),
        }
        let class = name.strip_suffix(".get_all_records").unwrap();
        if names.as_array().unwrap().contains(&json!(format!("{class}.get_all_records_where"))) {
            let none =
                client.call(&format!("{class}.get_all_records_where"), json!(["false"])).await;
            assert!(none.is_ok_and(|it| it.as_object().unwrap().is_empty()), "{class}");
        }
    }
}

#[tokio::test]
async fn fields_are_read_and_written_as_the_model_says() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let network = client.ok("network.get_all", json!([])).await[0].clone();
    client.ok("network.set_name_label", json!([network, "renamed ☃ <&>"])).await;
    let record = client.ok("network.get_record", json!([network])).await;
    assert_eq!(record["name_label"], "renamed ☃ <&>");
    let found = client.ok("network.get_by_name_label", json!(["renamed ☃ <&>"])).await;
    assert_eq!(found, json!([network]));
    assert_eq!(client.ok("network.get_by_uuid", json!([record["uuid"]])).await, network);
    client.ok("network.set_MTU", json!([network, "9000"])).await;
    assert_eq!(client.ok("network.get_MTU", json!([network])).await, 9000);
    client.ok("network.add_to_other_config", json!([network, "k", "v"])).await;
    let twice = client.fails("network.add_to_other_config", json!([network, "k", "v"])).await;
    assert_eq!(
        twice,
        ["MAP_DUPLICATE_KEY", "network", "other_config", network.as_str().unwrap(), "k"]
    );
    client.ok("network.remove_from_other_config", json!([network, "k"])).await;
    client.ok("network.remove_from_other_config", json!([network, "k"])).await;
    assert_eq!(
        client.fails("network.set_uuid", json!([network, "x"])).await,
        ["MESSAGE_METHOD_UNKNOWN", "network.set_uuid"]
    );
    let query = r#"field "name_label" = "renamed ☃ <&>" and not field "MTU" = "1500""#;
    let found = client.ok("network.get_all_records_where", json!([query])).await;
    assert_eq!(found.as_object().unwrap().len(), 1);
    assert_eq!(
        client.fails("network.get_all_records_where", json!(["nonsense"])).await[0],
        "INTERNAL_ERROR"
    );
}

#[tokio::test]
async fn tls_shows_the_certificate_that_the_pool_tells() {
    let pool = xenapi_sim::Pool::builder().seed(1).start().await.unwrap();
    assert!(pool.url().starts_with("https://127.0.0.1:"));
    assert!(pool.certificate().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(pool.fingerprint().len(), 95);
    // Clear text is not answered there.
    assert!(raw(&pool.url(), b"GET / HTTP/1.1\r\n\r\n").await.is_none());
    let elsewhere = "192.0.2.1:80".parse().unwrap();
    let refused = xenapi_sim::Pool::builder().http().listen(elsewhere).start().await;
    assert!(matches!(refused, Err(xenapi_sim::StartError::NotLoopback { .. })));
}

#[tokio::test]
async fn requests_that_come_before_the_answers_are_answered_in_their_order() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let call = |id: usize, method: &str, params: serde_json::Value| {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id});
        post("/jsonrpc", &body.to_string())
    };
    pool.set_latency("VM.clone", Duration::from_millis(50));
    let template = client.ok("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await;
    let mut requests = Vec::new();
    for id in 0..40 {
        // Some take their time, and none overtakes them.
        requests.extend(if id % 10 == 5 {
            call(id, "VM.clone", json!([client.session, template[0], "copy"]))
        } else {
            call(id, "VM.get_name_label", json!([client.session, template[0]]))
        });
    }
    let mut stream = TcpStream::connect(address(&pool.url())).await.unwrap();
    stream.write_all(&requests).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let ids = answers.split("\"id\":").skip(1).map(|rest| rest.split_once('}').unwrap().0);
    let expected: Vec<String> = (0..40).map(|id| id.to_string()).collect();
    assert_eq!(ids.collect::<Vec<_>>(), expected);
    assert_eq!(answers.matches("\"result\":\"Debian 12 (cloud-init)\"").count(), 36);
}

#[tokio::test]
async fn who_hangs_up_waits_for_events_no_longer() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let token = client.ok("event.from", json!([["vm"], "", 0.1])).await["token"].clone();
    let params = json!([client.session, ["vm"], token, 3600.0]);
    let body = json!({"jsonrpc": "2.0", "method": "event.from", "params": params, "id": 1});
    let mut stream = TcpStream::connect(address(&pool.url())).await.unwrap();
    stream.write_all(&post("/jsonrpc", &body.to_string())).await.unwrap();
    // Nothing happens, so nothing is told.
    let early = tokio::time::timeout(Duration::from_millis(100), stream.readable()).await;
    assert!(early.is_err());
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.is_empty());
}
