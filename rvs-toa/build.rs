// SPDX-License-Identifier: GPL-2.0-or-later

//! Compiles the BPF programs with clang.

use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

const SOURCE: &str = "src/toa.bpf.c";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let var = |name| env::var(name).map_err(io::Error::other);
    let object = PathBuf::from(var("OUT_DIR")?).join("toa.bpf.o");
    let (arch, endian) = (
        var("CARGO_CFG_TARGET_ARCH")?,
        var("CARGO_CFG_TARGET_ENDIAN")?,
    );
    let target = if endian == "big" { "bpfeb" } else { "bpfel" };
    let status = Command::new(&clang)
        .args([
            "-target", target, "-O2", "-g", "-Wall", "-Wextra", "-Werror",
        ])
        // Where Debian and its like keep what differs between processors.
        .args(["-idirafter", &format!("/usr/include/{arch}-linux-gnu")])
        .args(["-c", SOURCE, "-o"])
        .arg(&object)
        .status()
        .map_err(|e| {
            io::Error::other(format!(
                "{clang}, which compiles the BPF programs (CLANG= names another): {e}"
            ))
        })?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "{clang} -target {target}: {status}"
        )));
    }
    Ok(())
}
