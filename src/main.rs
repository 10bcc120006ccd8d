//! The program: everything it does begins in [`pgherd::app`].

fn main() -> std::process::ExitCode {
    pgherd::app::main()
}
