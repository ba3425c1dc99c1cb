//! Writes inputs for the fuzz targets to start from: `seeds FOLDER` makes one folder for each target.

use std::fs;
use std::io::Result;
use std::path::Path;

use bioxen_core::protocol::zygote::{Answer, Exit, How};
use bioxen_core::protocol::{
    Configure, End, Evaluate, Form, HEADER_LENGTH, Hello, Reply, Request, Status, VERSION, encode,
};
use bioxen_core::{Grants, Isolation, LuaError, Mechanism, Stream, Value};
// The instrumented code of this program needs its runtime.
use libfuzzer_sys as _;
use serde_bytes::ByteBuf;

/// Ways in which a stream arrives: whole, byte by byte, and in pieces of 3 and 7 bytes.
const CUTS: [&[u8]; 3] = [&[0], &[1, 1], &[2, 3, 7]];

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).expect("the folder to write to is named");
    let folder = Path::new(&folder);
    write(&folder.join("reply_frames"), &streams(&replies()))?;
    write(&folder.join("request_frames"), &streams(&requests()))?;
    write(&folder.join("zygote_answer"), &answers())?;
    write(&folder.join("json_record"), &texts(&JSON))?;
    write(&folder.join("xml_answer"), &texts(&XML))?;
    write(&folder.join("metrics"), &texts(&METRICS))?;
    write(&folder.join("where_query"), &texts(&QUERIES))?;
    write(&folder.join("seed_disk"), &[seed_disk()?])?;
    write(&folder.join("old_configuration"), &texts(&OLD_CONFIGURATIONS))?;
    write(&folder.join("pool_answers"), &texts(&ANSWERS))?;
    write(&folder.join("call_home"), &texts(&CALLS))?;
    write(&folder.join("cloud_init_verdict"), &texts(&BOOTS))
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

const JSON: [&str; 4] = [
    r#"{"uuid":"a","name_label":"x","power_state":"Running","memory_static_max":"1","VBDs":["OpaqueRef:b"],"other_config":{"k":"v"},"start_time":"20260101T00:00:00Z"}"#,
    r#"{"jsonrpc":"2.0","result":{"OpaqueRef:a":{"name_label":"x","VCPUs_max":2}},"id":1}"#,
    r#"{"jsonrpc":"2.0","error":{"code":1,"message":"HANDLE_INVALID","data":["VM","OpaqueRef:a"]},"id":1}"#,
    r#"{"result":{"events":[{"id":"1","timestamp":"0.0","class":"vm","operation":"add","ref":"OpaqueRef:a","snapshot":{}}],"valid_ref_counts":{"vm":1},"token":"1,2"},"error":null,"id":1}"#,
];

const XML: [&str; 3] = [
    "<?xml version='1.0'?><methodResponse><params><param><value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name><value><struct><member><name>OpaqueRef:a</name><value><struct><member><name>name_label</name><value>x &amp; y</value></member></struct></value></member></struct></value></member></struct></value></param></params></methodResponse>",
    "<methodResponse><params><param><value><struct><member><name>Status</name><value>Failure</value></member><member><name>ErrorDescription</name><value><array><data><value>VM_BAD_POWER_STATE</value></data></array></value></member></struct></value></param></params></methodResponse>",
    "<value><array><data><value>OpaqueRef:a</value></data></array></value>",
];

const METRICS: [&str; 3] = [
    r#"{"meta":{"start":1,"step":5,"end":6,"rows":1,"columns":1,"legend":["AVERAGE:vm:u:cpu0"]},"data":[{"t":6,"values":["NaN"]}]}"#,
    "<xport><meta><start>1</start><step>5</step><end>6</end><rows>1</rows><columns>1</columns><legend><entry>AVERAGE:host:u:cpu0</entry></legend></meta><data><row><t>6</t><v>0.5</v></row></data></xport>",
    "<rrd><version>0003</version><step>5</step><lastupdate>100</lastupdate><ds><name>cpu0</name></ds><rra><cf>AVERAGE</cf><pdp_per_row>1</pdp_per_row><database><row><v>0.1</v></row></database></rra></rrd>",
];

const QUERIES: [&str; 3] = [
    "true",
    r#"(field "is_a_template" = "true" and not (field "name_label" = "a\"b"))"#,
    r#"field "power_state"="Running" or false"#,
];

const OLD_CONFIGURATIONS: [&str; 3] = [
    r#"{"xcp_host":"https://10.0.0.5","xcp_username":"root","xcp_password":"secret","template":"lua-bio","memory":"2GB","vcpus":2,"verify_ssl":false}"#,
    r#"{"default_pool":"lab","xcpng_configs":{"lab":{"xapi_url":"https://xcp-01.example","username":"root","password":"secret","network_uuid":"n","sr_uuid":"s"}}}"#,
    "export XCP_HOST='xcp-01.example' # the lab's\nXCP_PASSWORD=\"a b\"\nVM_MEMORY=2147483648\n",
];

/// The first byte says in what pieces they come.
const ANSWERS: [&str; 3] = [
    "\u{3}HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 Internal Error\r\n\r\nthe rest",
    "\u{7}HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsec\r\n3;x=y\r\nond\r\n0\r\nA: b\r\n\r\n",
    "\u{1}HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\n\r\nHTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n",
];

/// The first byte says how much of it comes first.
const CALLS: [&str; 3] = [
    "\u{50}POST /call-home/abc HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\ninstance_id=1",
    "\u{10}GET / HTTP/1.1\r\n\r\n",
    "\u{70}POST /call-home/abc HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

const BOOTS: [&str; 3] = [
    "\n....\nstatus: done\n\0{\"v1\":{\"datasource\":\"x\",\"modules-final\":{\"start\":1.5,\"finished\":2.5,\"errors\":[]},\"stage\":null}}\0{\"v1\":{\"errors\":[]}}",
    "status: error\ndetail: DataSourceNoCloud\nerrors:\n\t- ('scripts_user', RuntimeError('x'))\nrecoverable_errors: {}\n\0\0\x002026-01-01 [ERROR]: x\nTraceback (most recent call last):\n  x\nValueError: y\n",
    "{\"status\":\"running\",\"detail\":\"Running in stage: modules-final\",\"recoverable_errors\":{\"WARNING\":[\"x\"]}}",
];

/// A small disk as cloud-init takes it.
fn seed_disk() -> Result<Vec<u8>> {
    let mut image = vec![0; 256 << 10];
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"cidata     ");
    fatfs::format_volume(std::io::Cursor::new(&mut image[..]), options)?;
    let volume =
        fatfs::FileSystem::new(std::io::Cursor::new(&mut image[..]), fatfs::FsOptions::new())?;
    let files = [
        ("meta-data", "instance-id: i-1\nlocal-hostname: guest\n"),
        ("user-data", "#cloud-config\nusers:\n  - name: ada\nruncmd: [[echo, hi]]\n"),
    ];
    for (name, text) in files {
        std::io::Write::write_all(&mut volume.root_dir().create_file(name)?, text.as_bytes())?;
    }
    volume.unmount()?;
    Ok(image)
}

fn write(folder: &Path, inputs: &[Vec<u8>]) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (index, input) in inputs.iter().enumerate() {
        fs::write(folder.join(format!("seed-{index:02}")), input)?;
    }
    Ok(())
}

/// Each payload alone, and the frames in a row in each way to arrive.
fn streams(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let alone = frames.iter().map(|frame| [CUTS[0], &frame[HEADER_LENGTH..]].concat());
    let in_a_row = CUTS.iter().map(|cut| [cut, &frames.concat()[..]].concat());
    alone.chain(in_a_row).collect()
}

fn isolation() -> Isolation {
    let mut isolation = Isolation::default();
    isolation.reached(Mechanism::Seccomp);
    isolation.missed(Mechanism::Cgroup, "no controller");
    isolation
}

fn replies() -> Vec<Vec<u8>> {
    let hello = Hello {
        protocol: VERSION,
        interpreter: "Lua 5.4.9".into(),
        platform: "linux-x86_64".into(),
    };
    [
        Reply::Sandboxed(isolation()),
        Reply::Hello(hello),
        Reply::Output(Stream::Stdout, b"49.8578\n"),
        Reply::Output(Stream::Stderr, b"\xff\0"),
        Reply::NeedInput(1),
        Reply::End(end(Status::Finished, values(), None)),
        Reply::End(end(Status::Error, vec![], Some(lua_error()))),
        Reply::Fatal("no memory".into()),
    ]
    .iter()
    .map(encode)
    .collect()
}

fn end(status: Status, values: Vec<Value>, error: Option<LuaError>) -> End {
    End {
        id: 1,
        status,
        values,
        error,
        exit_code: Some(3),
        cpu_time_us: Some(1_500),
        peak_memory: Some(1 << 20),
        cut: (false, true),
        state_lost: false,
    }
}

fn values() -> Vec<Value> {
    let text = |text: &str| Value::String(text.into());
    vec![
        Value::Nil,
        Value::Boolean(true),
        Value::Integer(-48_502),
        Value::Float(f64::NAN),
        Value::Float(0.498_578),
        Value::String(b"\xfe".to_vec()),
        Value::Array(vec![Value::Integer(1), Value::Array(vec![])]),
        Value::Map(vec![(text("gc"), Value::Float(0.5)), (Value::Integer(2), text("x"))]),
        Value::Other("function: 0x55d0".into()),
    ]
}

fn lua_error() -> LuaError {
    LuaError {
        message: "input:1: boom".into(),
        traceback: Some("stack traceback:".into()),
        value: Some(Value::Map(vec![(Value::String(b"code".to_vec()), Value::Integer(7))])),
    }
}

fn requests() -> Vec<Vec<u8>> {
    let grants = Grants::none()
        .read("/data")
        .write("/results")
        .env("HOME")
        .net("[::1]:80".parse().expect("it is an address"))
        .spawn();
    [
        Request::Configure(Configure { memory: Some(1 << 28), grants }),
        Request::Evaluate(evaluate(Form::Chunk)),
        Request::Evaluate(evaluate(Form::Input)),
        Request::Cancel(1),
        Request::Stdin(b"ACGT\n"),
        Request::Stdin(b""),
        Request::Shutdown,
    ]
    .iter()
    .map(encode)
    .collect()
}

fn evaluate(form: Form) -> Evaluate<'static> {
    Evaluate {
        id: 1,
        form,
        fresh: true,
        name: "=input".into(),
        code: b"return '\0\xff'",
        arguments: vec![ByteBuf::from(*b"\xfe")],
        environment: Some([("A".to_owned(), "b".to_owned())].into()),
        working_directory: Some(ByteBuf::from(*b"/data")),
        wall_time_us: Some(60_000_000),
        cpu_time_us: None,
        output: Some(u64::MAX),
    }
}

fn answers() -> Vec<Vec<u8>> {
    let ended = |how| {
        let exit = Exit { how, cpu_time_us: Some(1_500), peak_resident: Some(1 << 20) };
        Answer::Ended { process: 4_711, exit }
    };
    [
        Answer::Ready(isolation()),
        Answer::Forked { order: 1, process: 4_711 },
        Answer::Refused { order: 2, reason: "no such file".into() },
        ended(How::Exited(0)),
        ended(How::Signalled(9)),
    ]
    .iter()
    .map(|answer| encode(answer).split_off(HEADER_LENGTH))
    .collect()
}
