//! The worker as a program of its own, for controllers that cannot start themselves as one.

fn main() -> std::process::ExitCode {
    bioxen_worker::main()
}
