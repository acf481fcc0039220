//! The ELF header of a program.
//!
//! 64 bits, little-endian, as of System V ABI: `e_machine` at 18, `e_phoff` at 32, `e_phentsize` at 54,
//! `e_phnum` at 56.

use std::path::Path;

/// The program header that names the dynamic linker.
const PT_INTERP: u32 = 3;

/// The facts of a program that the tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elf {
    /// The processor, e.g. 62 for amd64.
    pub(crate) machine: u16,
    /// Whether the program needs a dynamic linker, and so libraries.
    pub(crate) is_dynamic: bool,
}

/// Reads the header of a program.
pub(crate) fn read(path: &Path) -> Elf {
    parse(&std::fs::read(path).expect("the program can be read"))
}

fn parse(file: &[u8]) -> Elf {
    assert_eq!(file[..6], *b"\x7fELF\x02\x01", "it is no little-endian ELF file of 64 bits");
    let short = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]);
    let headers = u64::from_le_bytes(file[32..40].try_into().expect("8 bytes"));
    let headers = usize::try_from(headers).expect("it fits");
    let (size, count) = (usize::from(short(54)), usize::from(short(56)));
    let kind = |index: usize| {
        let at = headers + index * size;
        u32::from_le_bytes(file[at..at + 4].try_into().expect("4 bytes"))
    };
    Elf { machine: short(18), is_dynamic: (0..count).any(|index| kind(index) == PT_INTERP) }
}

#[test]
fn a_program_that_needs_a_dynamic_linker_is_known() {
    let mut file = vec![0; 64 + 56];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (file[18], file[32], file[54], file[56]) = (62, 64, 56, 1);
    assert_eq!(parse(&file), Elf { machine: 62, is_dynamic: false });
    file[64] = 3;
    assert_eq!(parse(&file), Elf { machine: 62, is_dynamic: true });
}
