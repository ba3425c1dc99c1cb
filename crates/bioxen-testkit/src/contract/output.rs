//! What code writes: exact bytes, apart by stream, in order, as they come.

use bioxen::{Chunk, EndedBy, Limits, Running, Script, Stream};
use bioxen_core::ByteSize;

use super::{Subject, ended, finished};

async fn chunks(mut running: Running) -> Vec<Chunk> {
    let mut all = Vec::new();
    while let Some(chunk) = running.next_chunk().await.expect("it runs") {
        all.push(chunk);
    }
    finished(running.finish().await);
    all
}

/// Neighbouring chunks of the same stream as one.
fn joined(chunks: &[Chunk]) -> Vec<(Stream, Vec<u8>)> {
    let mut joined: Vec<(Stream, Vec<u8>)> = Vec::new();
    for chunk in chunks {
        match joined.last_mut() {
            Some((stream, data)) if *stream == chunk.stream => data.extend_from_slice(&chunk.data),
            _ => joined.push((chunk.stream, chunk.data.to_vec())),
        }
    }
    joined
}

pub async fn both_streams_arrive_apart(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "print('out', 1, nil, true) io.stderr:write('err\\n') io.write('a', 2, '\\n') \
                io.stdout:write('no end') io.stderr:write('no end either')";
    let run = finished(vm.eval(code).await);
    assert_eq!(run.text(), "out\t1\tnil\ttrue\na2\nno end");
    assert_eq!(String::from_utf8_lossy(&run.stderr), "err\nno end either");
    assert_eq!(run.record.stdout.bytes, run.stdout.len() as u64);
    assert_eq!(run.record.stderr.bytes, run.stderr.len() as u64);
    assert!(!run.record.stdout.cut && !run.record.stderr.cut);
}

pub async fn the_order_across_streams_is_kept(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "for i = 1, 20 do io.write('o', i) io.stderr:write('e', i) end";
    let chunks = chunks(vm.eval(code).start().await.expect("it starts")).await;
    let expected: Vec<(Stream, Vec<u8>)> = (1..=20)
        .flat_map(|i| {
            [(Stream::Stdout, format!("o{i}").into()), (Stream::Stderr, format!("e{i}").into())]
        })
        .collect();
    assert_eq!(joined(&chunks), expected);
}

pub async fn output_is_exact_bytes(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "local t = {} for i = 0, 255 do t[#t + 1] = string.char(i) end \
                local all = table.concat(t) io.write(all) io.stderr:write(all, '\\r\\n', all)";
    let run = finished(vm.eval(code).await);
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(run.stdout, all);
    assert_eq!(run.stderr, [&all[..], b"\r\n", &all[..]].concat());
}

pub async fn ten_megabytes_may_be_on_one_line(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("io.write((('0123456789'):rep(1000000)))").await);
    assert_eq!(run.stdout.len(), 10_000_000);
    assert!(run.stdout.chunks(10).all(|piece| piece == b"0123456789"));
    let pieces = "local s = ('x'):rep(100) for _ = 1, 100000 do io.write(s) end";
    let run = finished(vm.eval(pieces).await);
    assert_eq!(run.stdout.len(), 10_000_000);
}

pub async fn many_short_lines_arrive_whole(subject: &Subject) {
    let vm = subject.vm().await;
    let run = finished(vm.eval("for i = 1, 50000 do print(i) end").await);
    let expected: String = (1..=50_000).map(|i| format!("{i}\n")).collect();
    assert_eq!(run.text(), expected);
}

pub async fn output_comes_while_the_code_runs(subject: &Subject) {
    let vm = subject.vm().await;
    let endless = "print('begun') local x = 0 while true do x = x + 1 end";
    let mut running = vm.eval(endless).start().await.expect("it starts");
    let chunk = running.next_chunk().await.expect("it runs").expect("it has written");
    assert_eq!(&chunk.data[..], b"begun\n");
    drop(running);
}

pub async fn what_was_written_before_an_error_or_an_exit_arrives(subject: &Subject) {
    let vm = subject.vm().await;
    let run = ended(vm.eval("io.write('partial') error('x')").await, EndedBy::Error);
    assert_eq!(run.text(), "partial");
    let run = finished(vm.eval("io.write('partial') os.exit(0)").await);
    assert_eq!(run.text(), "partial");
    let deep = "coroutine.wrap(function() io.write('deep') os.exit(0) end)()";
    assert_eq!(finished(vm.eval(deep).await).text(), "deep");
}

pub async fn buffering_modes_lose_nothing(subject: &Subject) {
    let vm = subject.vm().await;
    for mode in ["no", "full", "line"] {
        let code = format!(
            "io.stdout:setvbuf('{mode}') io.write('a') io.write('b\\nc') io.stdout:flush() \
             io.flush() io.write('d')"
        );
        assert_eq!(finished(vm.eval(code).await).text(), "ab\ncd", "{mode}");
    }
}

pub async fn output_beyond_the_limit_ends_the_run(subject: &Subject) {
    let output = ByteSize::kib(100).into();
    let vm = subject.vm_with(|s| s.limits(Limits { output, ..Limits::default() })).await;
    let endless = "while true do pcall(io.write, ('x'):rep(1000)) end";
    let run = ended(vm.eval(endless).await, EndedBy::Output);
    assert_eq!(run.stdout.len(), 100 << 10, "all that the limit lets through arrives");
    assert!(run.record.stdout.cut && !run.record.stderr.cut);
    let ending = &run.record.ending;
    assert_eq!((ending.limit.as_deref(), ending.exit_code), (Some("100.0 KiB"), 1));
    assert!(ending.peak.is_some());
    assert!(ending.hint.as_ref().is_some_and(|hint| hint.contains("--max-output")), "{ending:?}");
    assert!(ending.state_kept, "{ending:?}");
    let run = finished(vm.eval("io.stderr:write(('e'):rep(1000))").await);
    assert_eq!(run.stderr.len(), 1000, "the next run has a limit of its own");
    let run = ended(vm.eval("io.stderr:write(('e'):rep(200000))").await, EndedBy::Output);
    assert!(run.record.stderr.cut && !run.record.stdout.cut);
    assert_eq!(run.stderr.len(), 100 << 10);
}

pub async fn what_finalisers_write_at_the_end_of_a_fresh_run_arrives(subject: &Subject) {
    if !subject.traits.has_finalisers {
        return;
    }
    let vm = subject.vm().await;
    let code = "keep = setmetatable({}, {__gc = function() io.write('collected') end}) \
                keep = nil collectgarbage() io.write('.')";
    let run = finished(vm.run(Script::code("s", code)).await);
    assert_eq!(run.text(), "collected.");
}
