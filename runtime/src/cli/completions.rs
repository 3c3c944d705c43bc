//! `weir completions`.

use std::io::Write as _;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use super::Ended;

/// Print what a shell needs to complete the commands and options of weir
#[derive(Debug, Args)]
#[command(after_help = "\
Where it goes:
  bash        weir completions bash > ~/.local/share/bash-completion/completions/weir
  zsh         weir completions zsh > ~/.zfunc/_weir
              and in ~/.zshrc, before compinit: fpath+=~/.zfunc
  fish        weir completions fish > ~/.config/fish/completions/weir.fish
  powershell  weir completions powershell >> $PROFILE
  elvish      weir completions elvish > ~/.config/elvish/lib/weir.elv
              and in ~/.config/elvish/rc.elv: use weir

Make the directory first if it is not there, and begin a new shell afterwards. After an upgrade, do it again.")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<Ended> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "weir", &mut script);
    std::io::stdout().write_all(&script).context("writing the completions")?;
    Ok(Ended::Done)
}
