//! Medians and quantiles.

/// The least value that the share `q` of all values does not exceed; `None` where there are none.
pub(super) fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// The value in the middle.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0, 0.0].map(|q| quantile(&values, q)), [100.0, 198.0, 200.0, 1.0].map(Some));
        assert_eq!((median(&[7.0]), median(&[])), (Some(7.0), None));
    }
}
