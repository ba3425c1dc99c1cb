//! What each VM of the demonstration does, and how it should end.

use std::path::Path;
use std::time::Duration;

use bioxen::{
    ByteSize, EndedBy, FileCopy, Grants, Limits, MachineSpec, Place, Run, Script, VmName, VmSpec,
    VmType,
};

use super::lab;
use crate::{ending, shown};

/// What the genome is called in a guest.
const IN_GUEST: &str = "lambda.fasta";

/// One VM with its task.
pub(super) struct Part {
    /// The VM's name.
    pub(super) name: &'static str,
    /// What it does, in two or three words.
    pub(super) task: &'static str,
    /// How its run should end.
    pub(super) ends_by: EndedBy,
    /// Where it lives.
    pub(super) vm_type: VmType,
    work: Work,
}

enum Work {
    /// An analysis of the genome, and the beginning of the line of its output that tells most.
    Analysis { code: &'static str, arguments: &'static [&'static str], telling: &'static str },
    /// Code that its limits or the lack of a grant should stop.
    Mischief { code: &'static str, limits: fn(Limits) -> Limits },
}

/// All parts, in the order in which they are shown.
pub(super) const PARTS: [Part; 10] = [
    Part {
        name: "gc-content",
        task: "GC content",
        ends_by: EndedBy::Finished,
        vm_type: VmType::Basic,
        work: Work::Analysis {
            code: include_str!("../../../assets/gc_content.lua"),
            arguments: &[],
            telling: "GC percent",
        },
    },
    Part {
        name: "kmers",
        task: "6-mers",
        ends_by: EndedBy::Finished,
        vm_type: VmType::Basic,
        work: Work::Analysis {
            code: include_str!("../../../assets/kmer_counts.lua"),
            arguments: &[],
            telling: "distinct k-mers",
        },
    },
    Part {
        name: "motifs",
        task: "EcoRI sites",
        ends_by: EndedBy::Finished,
        vm_type: VmType::Basic,
        work: Work::Analysis {
            code: include_str!("../../../assets/motif_search.lua"),
            arguments: &["GAATTC"],
            telling: "motif GAATTC",
        },
    },
    Part {
        name: "orfs",
        task: "reading frames",
        ends_by: EndedBy::Finished,
        vm_type: VmType::Basic,
        work: Work::Analysis {
            code: include_str!("../../../assets/open_reading_frames.lua"),
            arguments: &[],
            telling: "ORFs of at least",
        },
    },
    Part {
        name: "gc-on-pool",
        task: "GC content",
        ends_by: EndedBy::Finished,
        vm_type: VmType::Xcpng,
        work: Work::Analysis {
            code: include_str!("../../../assets/gc_content.lua"),
            arguments: &[],
            telling: "GC percent",
        },
    },
    Part {
        name: "kmers-on-pool",
        task: "6-mers",
        ends_by: EndedBy::Finished,
        vm_type: VmType::Xcpng,
        work: Work::Analysis {
            code: include_str!("../../../assets/kmer_counts.lua"),
            arguments: &[],
            telling: "distinct k-mers",
        },
    },
    Part {
        name: "hog",
        task: "takes all memory",
        ends_by: EndedBy::Memory,
        vm_type: VmType::Basic,
        work: Work::Mischief {
            code: "local t = {} for i = 1, math.huge do t[i] = ('GATTACA'):rep(100) .. i end",
            limits: |limits| Limits { memory: ByteSize::mib(32).into(), ..limits },
        },
    },
    Part {
        name: "runaway",
        task: "never ends",
        ends_by: EndedBy::WallTime,
        vm_type: VmType::Basic,
        work: Work::Mischief {
            code: "while true do end",
            limits: |limits| Limits { wall_time: Duration::from_millis(500).into(), ..limits },
        },
    },
    Part {
        name: "snoop",
        task: "reads /etc/passwd",
        ends_by: EndedBy::Error,
        vm_type: VmType::Basic,
        work: Work::Mischief {
            code: "print(assert(io.open('/etc/passwd')):read('a'))",
            limits: |limits| limits,
        },
    },
    Part {
        name: "escapee",
        task: "starts a program",
        ends_by: EndedBy::Error,
        vm_type: VmType::Basic,
        work: Work::Mischief { code: "assert(os.execute('id'))", limits: |limits| limits },
    },
];

impl Part {
    /// The order for its VM: only an analysis is let near the genome.
    pub(super) fn spec(&self, genome: &Path) -> VmSpec {
        let name = VmName::new(self.name).expect("a constant and valid name");
        let spec = VmSpec::new(name, self.place(genome));
        let genome = self.seen(genome);
        match self.work {
            Work::Analysis { .. } => spec.grants(Grants::none().read(genome)),
            Work::Mischief { limits, .. } => spec.limits(limits(Limits::default())),
        }
    }

    /// Where its VM lives; in a machine it finds the genome in its home directory.
    fn place(&self, genome: &Path) -> Place {
        match self.vm_type {
            VmType::Basic => Place::Basic,
            VmType::Xcpng => Place::from(MachineSpec {
                template: Some(lab::TEMPLATE.into()),
                port: Some(lab::PORT),
                files: vec![FileCopy { from: genome.to_owned(), to: IN_GUEST.into() }],
                ..MachineSpec::default()
            }),
        }
    }

    /// The genome as its code sees it.
    fn seen<'a>(&self, genome: &'a Path) -> &'a Path {
        match self.vm_type {
            VmType::Basic => genome,
            VmType::Xcpng => Path::new(IN_GUEST),
        }
    }

    /// What runs in it.
    pub(super) fn script(&self, genome: &Path) -> Script {
        match self.work {
            Work::Analysis { code, arguments, .. } => Script::code(self.name, code)
                .arg(self.seen(genome).as_os_str().as_encoded_bytes())
                .args(arguments.iter().copied()),
            Work::Mischief { code, .. } => Script::code(self.name, code),
        }
    }

    /// The one line that tells what came of it.
    pub(super) fn result(&self, run: &Run) -> String {
        if let Some(message) = ending::message(&run.record) {
            return message;
        }
        let output = String::from_utf8_lossy(&run.stdout);
        let telling = match self.work {
            Work::Analysis { telling, .. } => telling,
            Work::Mischief { .. } => "",
        };
        let line = output.lines().find(|line| line.starts_with(telling)).unwrap_or_default();
        shown::clipped(line, 100)
    }
}
