// Counts words in a map and sorts them by how often they came, and prints a checksum. The argument is how many thousand words.
use std::collections::HashMap;

fn main() {
    let thousands: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut seed: u32 = 1;
    for _ in 0..thousands * 1000 {
        seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
        let number = (seed >> 16) & (seed >> 20) & 0xfff; // some more often than others
        let word: String = format!("word-{:x}", number);
        *counts.entry(word).or_insert(0) += 1;
    }
    let mut sorted: Vec<(String, u32)> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut sum: u32 = 0;
    for (at, (word, count)) in sorted.iter().enumerate() {
        for byte in word.bytes() {
            sum = sum.wrapping_mul(31).wrapping_add(byte as u32 ^ *count ^ at as u32);
        }
    }
    println!("{}", sum);
}
