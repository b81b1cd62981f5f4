// work computes in many ways, prints what comes of it, and ends with what its argument says: "trap" by a trap deep in its calls,
// "exit" with an exit code.
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone)]
enum Tree {
    Leaf(u64),
    Node(Box<Tree>, Box<Tree>),
}

fn grow(depth: u64, seed: u64) -> Tree {
    if depth == 0 {
        return Tree::Leaf(seed);
    }
    Tree::Node(Box::new(grow(depth - 1, seed * 2)), Box::new(grow(depth - 1, seed * 2 + 1)))
}

fn sum(t: &Tree) -> u64 {
    match t {
        Tree::Leaf(n) => *n,
        Tree::Node(a, b) => sum(a).wrapping_mul(31).wrapping_add(sum(b)),
    }
}

#[inline(never)]
fn descend(depth: u32, numbers: &[u32]) -> u32 {
    if depth == 0 {
        return break_down(numbers);
    }
    descend(depth - 1, numbers) + 1
}

#[inline(never)]
fn break_down(numbers: &[u32]) -> u32 {
    match numbers.get(numbers.iter().sum::<u32>() as usize) {
        Some(n) => *n,
        None => std::arch::wasm32::unreachable(), // a panic would end in the library, and say so
    }
}

fn main() {
    println!("tree: {}", sum(&grow(14, 1)));
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..20_000u32 {
        *counts.entry(format!("key {}", n.wrapping_mul(2_654_435_761) % 997)).or_default() += n;
    }
    println!("counts: {} {:?}", counts.len(), counts.iter().next());
    let seen: HashMap<u32, f64> = (0..5000).map(|n| (n, f64::from(n).sin())).collect();
    let mut sines: Vec<f64> = seen.values().copied().collect();
    sines.sort_by(f64::total_cmp);
    println!("sines: {:.12} {:.12}", sines.iter().sum::<f64>(), sines[2500]);
    let text: String = (0..3000).map(|n| char::from_u32(0x3b1 + n % 24).unwrap()).collect();
    println!("text: {} {}", text.len(), text.chars().rev().filter(|c| *c > 'β').count());
    let wide: Vec<i128> = (1..100).map(|n: i128| n.pow(12) / 7 - (n << 70)).collect();
    println!("wide: {:?}", wide.iter().max());
    let mut bytes = vec![7u8; 300_000];
    bytes.copy_within(100..200_000, 5000);
    bytes[1000..250_000].fill(9);
    println!("bytes: {}", bytes.iter().map(|b| u64::from(*b)).sum::<u64>());
    match std::env::args().nth(1).as_deref() {
        Some("exit") => std::process::exit(3),
        Some("trap") => println!("{}", descend(20, &[1, 2, 3])),
        _ => {}
    }
}
