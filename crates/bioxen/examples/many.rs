use bioxen::*;
fn main() {
    bioxen::init();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let f2 = Fleet::builder().standby(0).build();
        f2.create(VmSpec::basic("w").unwrap()).await.unwrap();
        for r in 0..3 {
            let t = std::time::Instant::now();
            for i in 0..100 {
                f2.create(VmSpec::basic(format!("v{r}_{i}")).unwrap()).await.unwrap();
            }
            println!("create forked {:?}", t.elapsed() / 100);
        }
    });
}
