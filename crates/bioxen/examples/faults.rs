use bioxen::*;
fn minflt(pid: u32) -> (u64, u64) {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let f: Vec<&str> = s.rsplit(") ").next().unwrap().split(' ').collect();
    let c = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    (f[7].parse().unwrap(), c.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000)
}
fn main() {
    bioxen::init();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let f2 = Fleet::builder().standby(0).build();
        f2.create(VmSpec::basic("w").unwrap()).await.unwrap();
        let zpid: u32 = {
            let VmState::Running { process: Some(p), .. } = f2.vm("w").unwrap().status() else {
                panic!()
            };
            let s = std::fs::read_to_string(format!("/proc/{p}/stat")).unwrap();
            s.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
        };
        let z0 = minflt(zpid);
        for i in 0..20 {
            f2.create(VmSpec::basic(format!("v{i}")).unwrap()).await.unwrap();
        }
        let z1 = minflt(zpid);
        println!("zygote per fork: faults {} cpu {} us", (z1.0 - z0.0) / 20, (z1.1 - z0.1) / 20);
        std::thread::sleep(std::time::Duration::from_millis(20));
        for i in [3, 7, 19] {
            let vm = f2.vm(&format!("v{i}")).unwrap();
            let VmState::Running { process: Some(p), .. } = vm.status() else { panic!() };
            println!("after create: faults, cpu us {:?}", minflt(p));
            vm.eval("return 1+1").await.unwrap();
            println!("after eval: {:?}", minflt(p));
            vm.eval("return 1+1").await.unwrap();
            println!("after eval2: {:?}", minflt(p));
            let s = std::fs::read_to_string(format!("/proc/{p}/smaps_rollup")).unwrap();
            println!(
                "{}",
                s.lines()
                    .filter(|l| l.starts_with("Pss:")
                        || l.starts_with("Private_Dirty")
                        || l.starts_with("Rss"))
                    .collect::<Vec<_>>()
                    .join(" ")
            );
        }
    });
}
