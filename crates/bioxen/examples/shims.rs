use bioxen::*;
fn main() {
    bioxen::init();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let fleet = Fleet::builder().standby(0).build();
        for (i, name) in ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit"].iter().enumerate() {
            let vm = match fleet.create(VmSpec::basic(format!("v{i}")).unwrap().interpreter(Interpreter::parse(name))).await { Ok(v) => v, Err(e) => { println!("{name}: {e:?}"); continue } };
            println!("== {name} {:?}", vm.info().interpreter);
            for code in ["1+1", "print('hi') io.stderr:write('err\\n') x=5", "x, {1,2,{a=1}}", "error('boom')", "io.open('/etc/passwd')", "os.execute('ls')", "os.exit(3)", "for i=1,", "string.rep('x', 1e9)", "while true do end"] {
                let t = std::time::Instant::now();
                match vm.eval(code).wall_time(std::time::Duration::from_millis(300)).await {
                    Ok(r) => println!("{code:40} -> {:?} {:?} code={} inc={} vals={:?} err={:?} out={:?} {:?} state={} peak={:?}", r.record.ending.ended_by, t.elapsed(), r.record.ending.exit_code, r.incomplete, r.record.values.iter().map(|v| v.to_string()).collect::<Vec<_>>(), r.record.error.map(|e| e.message), String::from_utf8_lossy(&r.stdout), String::from_utf8_lossy(&r.stderr), r.record.ending.state_kept, r.record.peak_memory),
                    Err(e) => println!("{code} -> ERR {e:?}"),
                }
            }
        }
    });
}
