//! Metrics, from the hosts that have them.

use std::sync::Arc;
use std::time::Duration;

use xenapi::metrics::{Consolidation, Kind, MetricsFailure, Span};
use xenapi::{Ref, TransferFailure};

use crate::support::{Pool, Request, start};

const VM: &str = "OpaqueRef:vm";
const UPDATES: &str = r#"{"meta":{"step":5,"legend":["AVERAGE:vm:uuid-of-vm:cpu0","AVERAGE:vm:other:cpu0",
    "AVERAGE:host:uuid-of-host:loadavg"]},"data":[{"t":10,"values":["0.5","NaN",3]}]}"#;
const ARCHIVE: &str =
    "<rrd><step>5</step><lastupdate>12</lastupdate><ds><name>cpu0</name></ds><rra><cf>MAX</cf>
    <pdp_per_row>1</pdp_per_row><database><row><v>0.5</v></row></database></rra></rrd>";

async fn answer(mut request: Request, body: &str) {
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    request.write(format!("{head}{body}").as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_vm_is_asked_of_the_host_that_runs_it() {
    let running = start(|_, request| async move { answer(request, UPDATES).await }).await;
    running.pool.set(|facts| facts.resident = Some(2));
    let span = Span::last(Duration::from_mins(1)).every(Duration::from_secs(5));
    let series = running
        .client
        .metrics()
        .vm(&Ref::from(VM), &span.consolidation(Consolidation::Average))
        .await
        .unwrap();
    assert_eq!(series.len(), 1);
    assert_eq!(
        (series[0].name.as_str(), series[0].latest().unwrap().1.to_bits()),
        ("cpu0", 0.5_f64.to_bits())
    );
    let line = "2 GET /rrd_updates?start=1787317385&json=true&interval=5&cf=AVERAGE&vm_uuid=uuid-of-vm HTTP/1.1";
    assert_eq!(running.pool.requests(), [line]);
}

#[tokio::test]
async fn a_host_is_asked_of_itself_and_tells_of_its_vms() {
    let running = start(|_, request| async move { answer(request, UPDATES).await }).await;
    let span = Span::since("2026-08-21T13:04:05Z".parse().unwrap());
    let series = running.client.metrics().host(&Ref::from("OpaqueRef:host2"), &span).await.unwrap();
    assert_eq!(series.iter().filter(|series| series.kind == Kind::Vm).count(), 2);
    let line = "2 GET /rrd_updates?start=1787317445&json=true&host=true HTTP/1.1";
    assert_eq!(running.pool.requests(), [line]);
}

#[tokio::test]
async fn an_archive_is_read_wherever_it_is_kept() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        if request.host == 1 && request.path() == "/vm_rrd" {
            request.redirect(&pool.url(2)).await;
        } else {
            answer(request, ARCHIVE).await;
        }
    })
    .await;
    running.pool.set(|facts| facts.resident = None);
    let metrics = running.client.metrics();
    let series = metrics.vm_archive(&Ref::from(VM)).await.unwrap();
    assert_eq!((&series[0].kind, series[0].uuid.as_str()), (&Kind::Vm, "uuid-of-vm"));
    assert_eq!(series[0].points[0].0.as_second(), 10);
    let series = metrics.host_archive(&Ref::from("OpaqueRef:host1")).await.unwrap();
    assert_eq!(series[0].kind, Kind::Host);
    let expected = [
        "1 GET /vm_rrd?uuid=uuid-of-vm HTTP/1.1",
        "2 GET /vm_rrd?uuid=uuid-of-vm HTTP/1.1",
        "1 GET /host_rrd HTTP/1.1",
    ];
    assert_eq!(running.pool.requests(), expected);
}

#[tokio::test]
async fn answers_that_are_none_are_told_with_the_object_and_the_host() {
    for body in ["", "<html>busy</html>", "{\"meta\":"] {
        let running = start(move |_, request| async move { answer(request, body).await }).await;
        let span = Span::last(Duration::from_mins(1));
        let error = running.client.metrics().vm(&Ref::from(VM), &span).await.unwrap_err();
        assert!(matches!(error.reason, MetricsFailure::Invalid(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(VM) && text.contains(&running.pool.url(1)), "{text}");
    }
    let running = start(|_, mut request: Request| async move {
        request.refuse("403 Forbidden").await;
    })
    .await;
    let error = running.client.metrics().vm_archive(&Ref::from(VM)).await.unwrap_err();
    assert!(matches!(
        error.reason,
        MetricsFailure::Transfer(TransferFailure::Refused { status: 403, .. })
    ));
}
