//! The parts of an evaluation, and of making VMs, watched for changes over time.
//!
//! `benches/compare` sets the same things beside other ways to run Lua.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bioxen::protocol::{
    Decoder, End, Evaluate, Form, HEADER_LENGTH, Reply, Request, Status, decode, encode_into,
};
use bioxen::{Fleet, Run, Value, Vm, VmSpec};
use criterion::{BenchmarkId, Criterion};
use tokio::runtime::Runtime;

const CODE: &str = "return 1+1";

/// How long the makers of standby workers are left alone between two VMs.
const PACE: Duration = Duration::from_millis(5);

fn main() {
    bioxen::init();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    frames(&mut criterion);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    evaluations(&mut criterion, &runtime);
    creation(&mut criterion, &runtime);
    broadcasts(&mut criterion, &runtime);
    criterion.final_summary();
}

/// What the protocol costs by itself.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let mut buffer = Vec::new();
    group.bench_function("encode_evaluate", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            encode_into(&mut buffer, &black_box(request()));
        });
    });
    group.bench_function("decode_evaluate", |bencher| {
        bencher.iter(|| decode::<Request>(black_box(&buffer[HEADER_LENGTH..])).is_ok());
    });
    let mut answer = Vec::new();
    encode_into(&mut answer, &reply());
    group.bench_function("decode_end", |bencher| {
        let mut decoder = Decoder::new(1 << 20);
        bencher.iter(|| {
            decoder.space().extend_from_slice(&answer);
            let payload = decoder.next_payload().expect("the frame is whole");
            decode::<Reply>(&payload.expect("the frame is whole")).is_ok()
        });
    });
    group.finish();
}

fn request() -> Request<'static> {
    Request::Evaluate(Evaluate {
        id: 7,
        form: Form::Input,
        fresh: false,
        name: "=eval".into(),
        code: CODE.as_bytes(),
        arguments: Vec::new(),
        environment: None,
        working_directory: None,
        wall_time_us: Some(60_000_000),
        cpu_time_us: Some(60_000_000),
        output: Some(16 << 20),
    })
}

fn reply() -> Reply<'static> {
    Reply::End(End {
        id: 7,
        status: Status::Finished,
        values: vec![Value::Integer(2)],
        error: None,
        exit_code: None,
        cpu_time_us: Some(3),
        peak_memory: Some(23_000),
        cut: (false, false),
        state_lost: false,
    })
}

fn evaluations(criterion: &mut Criterion, runtime: &Runtime) {
    let fleet = Fleet::builder().standby(0).build();
    let vm = runtime.block_on(fleet.create(spec(0))).expect("a VM can be made");
    for fresh in [false, true] {
        let name = if fresh { "eval_fresh" } else { "eval" };
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|times| on(runtime, evaluate(vm.clone(), times, fresh)));
        });
    }
}

async fn evaluate(vm: Vm, times: u64, fresh: bool) -> Duration {
    let clock = Instant::now();
    for _ in 0..times {
        let evaluation = vm.eval(CODE);
        let evaluation = if fresh { evaluation.fresh() } else { evaluation };
        check(&evaluation.await.expect("the VM runs"));
    }
    clock.elapsed()
}

fn creation(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("create");
    for (standby, pace) in [(0, Duration::ZERO), (4, PACE)] {
        let fleet = Fleet::builder().standby(standby).build();
        runtime.block_on(fleet.create(spec(0))).expect("a VM can be made");
        group.bench_function(BenchmarkId::new("standby", standby), |bencher| {
            bencher.iter_custom(|times| on(runtime, create(fleet.clone(), times, pace)));
        });
    }
    group.finish();
}

async fn create(fleet: Fleet, times: u64, pace: Duration) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..times {
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        let spec = spec(1);
        let clock = Instant::now();
        let vm = fleet.create(spec).await.expect("a VM can be made");
        spent += clock.elapsed();
        fleet.remove(vm.name().as_str()).await.expect("a VM can be removed");
    }
    spent
}

fn broadcasts(criterion: &mut Criterion, runtime: &Runtime) {
    let fleet = Fleet::builder().standby(0).build();
    let group = runtime.block_on(fleet.create_group("all", 50, spec(0)));
    let group = group.expect("50 VMs can be made");
    criterion.bench_function("broadcast_50", |bencher| {
        bencher.iter_custom(|times| {
            let group = group.clone();
            on(runtime, async move {
                let clock = Instant::now();
                for _ in 0..times {
                    for (_, run) in group.broadcast(CODE).wait().await {
                        check(&run.expect("the VM runs"));
                    }
                }
                clock.elapsed()
            })
        });
    });
}

/// Runs work in a spawned task, as programs with several threads do.
fn on(runtime: &Runtime, work: impl Future<Output = Duration> + Send + 'static) -> Duration {
    runtime.block_on(runtime.spawn(work)).expect("the task does not panic")
}

fn spec(number: u32) -> VmSpec {
    VmSpec::basic(format!("vm_{number}")).expect("the name is valid")
}

/// Makes sure that a run did what it was to do, so that no failure is taken for speed.
fn check(run: &Run) {
    assert_eq!(run.value(), &Value::Integer(2));
}
