//! The worker as it is put into guests: nothing else is linked, so that it can be built static.

fn main() -> std::process::ExitCode {
    bioxen_worker::main()
}
