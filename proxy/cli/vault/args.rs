//! What `sluice vault` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::{Common, Format};

#[derive(Debug, Args)]
pub(crate) struct Vault {
    #[command(subcommand)]
    pub(super) command: VaultCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum VaultCommand {
    /// Say whether the vault is made and open; exit 3 where it is not
    #[command(after_help = "Example:\n  sluice vault status --format json")]
    Status(Asked),
    /// Make a vault that opens by shares; they and a first root token are shown this once
    #[command(after_help = "Example:\n  sluice vault init --shares 5 --threshold 3")]
    Init {
        /// How many shares there are to be
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        shares: u8,
        /// How many of them open it
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        threshold: u8,
        #[command(flatten)]
        asked: Asked,
    },
    /// Give shares, read from the terminal or one a line from standard input, until it is open
    #[command(after_help = "Example:\n  sluice vault unseal < share.txt")]
    Unseal(Asked),
    /// Close it: everything is refused until it is unsealed
    #[command(after_help = "Example:\n  sluice vault seal")]
    Seal(Asked),
    /// Begin a new key for what is stored; the rest is sealed anew in the background
    #[command(after_help = "Example:\n  sluice vault rotate")]
    Rotate(Asked),
    /// Put a new root key in the place of the present one: new shares, or a new key file
    #[command(after_help = "Example:\n  sluice vault rekey --key-file /etc/sluice/root.key")]
    Rekey(Rekey),
    /// Make a root token by shares, or by the key file, for whoever lost every other credential
    #[command(after_help = "Example:\n  sluice vault generate-root --key-file /etc/sluice/root.key")]
    GenerateRoot {
        #[command(flatten)]
        proof: Proof,
        /// Give up one that was broken off
        #[arg(long, conflicts_with = "key_file")]
        cancel: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

/// What shows that the present root key is had.
#[derive(Debug, Args)]
pub(super) struct Proof {
    /// The present key file of a vault that opens by one; shares are read from the terminal or standard input
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Rekey {
    #[command(flatten)]
    pub(super) proof: Proof,
    /// Have the new key in this file (it must not exist); without it and --shares it takes the place of --key-file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["shares", "threshold"])]
    pub(super) new_key_file: Option<PathBuf>,
    /// Have it in so many shares; without any option a vault that opens by shares keeps its numbers
    #[arg(long, value_name = "N", requires = "threshold", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) shares: Option<u8>,
    /// How many of them open it
    #[arg(long, value_name = "N", requires = "shares", value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) threshold: Option<u8>,
    /// Give up a rekey that was broken off; the present key stays
    #[arg(long, conflicts_with_all = ["key_file", "new_key_file", "shares", "threshold"])]
    pub(super) cancel: bool,
    #[command(flatten)]
    pub(super) asked: Asked,
}

/// Which vault is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Address of the vault worker; better in SECURITY_SERVICE_URL, else the one that the worker of the data directory
    /// has noted, else the configuration's
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Token; better in SLUICE_TOKEN, else it is DIR/token of the data directory
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Added to every port when the worker was started
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) port_offset: u16,
    #[command(flatten)]
    pub(super) common: Common,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub(super) format: Format,
}
