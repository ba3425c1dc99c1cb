use bioxen::*;
fn main() {
    bioxen::init();
    let rt =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    rt.block_on(async {
        let fleet = Fleet::builder().standby(2).build();
        let vm = fleet.create(VmSpec::basic("a").unwrap()).await.unwrap();
        for code in ["1+1", "print('hi') io.stderr:write('err\\n') x=5", "x, {1,2,{a=1}}, print", "error('boom')", "error({code=1})", "io.open('/etc/passwd')", "os.execute('ls')", "os.getenv('HOME')", "os.exit(3)", "for i=1,", "math.random()", "while true do end", "coroutine.wrap(function() while true do end end)()", "string.rep('x', 1e9)", "x", "setmetatable({}, {__gc=function() while true do end end}) collectgarbage()"] {
            let t = std::time::Instant::now();
            let r = vm.eval(code).wall_time(std::time::Duration::from_millis(200)).await;
            match r {
                Ok(r) => println!("{code:40} -> {:?} {:?} inc={} vals={:?} err={:?} out={:?} {:?} state={} cpu={:?} peak={:?}", r.record.ending.ended_by, t.elapsed(), r.incomplete, r.record.values.iter().map(|v| v.to_string()).collect::<Vec<_>>(), r.record.error.map(|e| e.message), String::from_utf8_lossy(&r.stdout), String::from_utf8_lossy(&r.stderr), r.record.ending.state_kept, r.record.cpu_time, r.record.peak_memory),
                Err(e) => println!("{code} -> ERR {e}"),
            }
        }
        println!("{:#?}", vm.info());
        vm.start().await.unwrap();
        let n = 20000;
        for _ in 0..1000 { vm.eval("return 1+1").await.unwrap(); }
        let t = std::time::Instant::now();
        for _ in 0..n { vm.eval("return 1+1").await.unwrap(); }
        println!("eval {:?}", t.elapsed() / n);
        let t = std::time::Instant::now();
        for _ in 0..2000 { vm.eval("return 1+1").fresh().await.unwrap(); }
        println!("fresh {:?}", t.elapsed() / 2000);
        let f2 = Fleet::builder().standby(0).build();
        f2.create(VmSpec::basic("w").unwrap()).await.unwrap();
        let t = std::time::Instant::now();
        for i in 0..500 { f2.create(VmSpec::basic(format!("v{i}")).unwrap()).await.unwrap(); }
        println!("create forked {:?}", t.elapsed() / 500);
        let t = std::time::Instant::now();
        drop(f2);
        println!("drop of 500 {:?}", t.elapsed());
        fleet.shutdown().await.unwrap();
    });
}
