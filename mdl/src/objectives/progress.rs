//! How far a key result has come.
//!
//! Progress is the share of the way from baseline to target: `(current - baseline) / (target - baseline)`, kept within 0
//! and 1. Without a baseline from which the direction leads to the target it is `current / target` where more is better and
//! `target / current` where less is. In any case it is 1 at the target and beyond, as the direction says. For a value to be
//! maintained it is one minus the relative distance from the target. It is unknown without a current value or a target.
//!
//! Status compares progress with the share of the timeframe that has passed: at least 70 % of it is on track, at least 40 %
//! at risk, less is behind. (The 0.7 and 0.4 marks are those customary in grading OKRs.)

use chrono::NaiveDate;

use super::key_results::{KeyResultContent, KeyResultDirection};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyResultStatus {
    /// No current value yet, or the timeframe has not begun.
    NotStarted,
    OnTrack,
    AtRisk,
    Behind,
    /// The target is reached.
    Achieved,
    /// The timeframe is over and the target is not reached.
    Missed,
}

/// Progress from 0 to 1; `None` when there is nothing to compute it from.
///
/// ```
/// use mdl::objectives::{KeyResultContent, KeyResultDirection, progress::progress};
/// let key_result = KeyResultContent {
///     direction: KeyResultDirection::Decrease,
///     baseline_value: Some(0.05),
///     target_value: Some(0.02),
///     current_value: Some(0.035),
///     ..KeyResultContent::default()
/// };
/// assert!((progress(&key_result).unwrap() - 0.5).abs() < 1e-9);
/// ```
pub fn progress(key_result: &KeyResultContent) -> Option<f64> {
    let (current, target) = (key_result.current_value?, key_result.target_value?);
    let share = match (key_result.direction, key_result.baseline_value) {
        (KeyResultDirection::Maintain, _) if target == 0.0 => f64::from(current == 0.0),
        (KeyResultDirection::Maintain, _) => 1.0 - ((current - target) / target).abs(),
        (KeyResultDirection::Increase, _) if current >= target => 1.0,
        (KeyResultDirection::Decrease, _) if current <= target => 1.0,
        (KeyResultDirection::Increase, Some(baseline)) if baseline < target => share_of_way(baseline, current, target),
        (KeyResultDirection::Decrease, Some(baseline)) if baseline > target => share_of_way(baseline, current, target),
        (KeyResultDirection::Increase, _) if target > 0.0 => current / target,
        (KeyResultDirection::Decrease, _) if current > 0.0 => target / current,
        _ => 0.0,
    };
    // Not -0.
    Some(share.clamp(0.0, 1.0) + 0.0)
}

/// `(current - baseline) / (target - baseline)`, also where a difference is beyond the greatest number.
fn share_of_way(baseline: f64, current: f64, target: f64) -> f64 {
    let share = |scale: f64| (current * scale - baseline * scale) / (target * scale - baseline * scale);
    let is_huge = !(current - baseline).is_finite() || !(target - baseline).is_finite();
    share(if is_huge { 0.5 } else { 1.0 })
}

/// Status on a day, in the timeframe of its objective.
pub fn status(
    key_result: &KeyResultContent,
    starts_on: Option<NaiveDate>,
    ends_on: Option<NaiveDate>,
    today: NaiveDate,
) -> KeyResultStatus {
    let Some(progress) = progress(key_result) else {
        return match ends_on {
            Some(end) if today > end => KeyResultStatus::Missed,
            _ => KeyResultStatus::NotStarted,
        };
    };
    let reached = match key_result.direction {
        KeyResultDirection::Maintain => progress >= 0.95,
        _ => progress >= 1.0,
    };
    match (starts_on, ends_on) {
        _ if reached => KeyResultStatus::Achieved,
        (_, Some(end)) if today > end => KeyResultStatus::Missed,
        (Some(start), _) if today < start => KeyResultStatus::NotStarted,
        (Some(start), Some(end)) => {
            let days = |from: NaiveDate, to: NaiveDate| (to - from).num_days() as f64 + 1.0;
            graded(progress, days(start, today) / days(start, end))
        }
        // Without a timeframe all of it counts as passed.
        _ => graded(progress, 1.0),
    }
}

/// Progress of an objective: the mean of what is known of its key results.
pub fn mean(progress: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = progress.into_iter().flatten().fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn graded(progress: f64, expected: f64) -> KeyResultStatus {
    if progress >= 0.7 * expected {
        KeyResultStatus::OnTrack
    } else if progress >= 0.4 * expected {
        KeyResultStatus::AtRisk
    } else {
        KeyResultStatus::Behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_result(direction: KeyResultDirection, baseline: Option<f64>, target: f64, current: f64) -> KeyResultContent {
        KeyResultContent {
            direction,
            baseline_value: baseline,
            target_value: Some(target),
            current_value: Some(current),
            ..KeyResultContent::default()
        }
    }

    #[test]
    fn progress_is_the_share_of_the_way() {
        use KeyResultDirection::*;
        let cases = [
            (Increase, Some(45.0), 55.0, 50.0, 0.5),
            (Increase, Some(45.0), 55.0, 60.0, 1.0),
            (Increase, Some(45.0), 55.0, 40.0, 0.0),
            (Increase, None, 50.0, 42.0, 0.84),
            (Increase, Some(10.0), 10.0, 5.0, 0.5),
            (Decrease, Some(5.0), 2.0, 3.5, 0.5),
            (Decrease, Some(5.0), 2.0, 1.0, 1.0),
            (Decrease, None, 200.0, 250.0, 0.8),
            (Maintain, None, 100.0, 90.0, 0.9),
            (Maintain, None, 0.0, 0.0, 1.0),
            // Baselines beyond the target: the direction decides.
            (Decrease, Some(50.0), 100.0, 75.0, 1.0),
            (Decrease, Some(50.0), 100.0, 125.0, 0.8),
            (Increase, Some(100.0), 50.0, 40.0, 0.8),
            // Differences beyond the greatest number.
            (Increase, Some(-1.7e308), 1.7e308, 0.0, 0.5),
            (Decrease, Some(1.7e308), -1.7e308, 1.7e308, 0.0),
            (Increase, Some(0.0), 1.0, -1.7e308, 0.0),
            (Increase, Some(1.7e308), f64::MAX, -1.7e308, 0.0),
            (Maintain, None, 1.7e308, -1.7e308, 0.0),
        ];
        for (direction, baseline, target, current, expected) in cases {
            let found = progress(&key_result(direction, baseline, target, current)).unwrap();
            assert!((found - expected).abs() < 1e-9, "{direction:?} {baseline:?} -> {target}, at {current}: {found}");
        }
        assert_eq!(progress(&KeyResultContent::default()), None);
    }

    #[test]
    fn status_looks_at_the_time_that_has_passed() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let half_way = key_result(KeyResultDirection::Increase, Some(0.0), 100.0, 50.0);
        let on = |key_result: &KeyResultContent, today: &str| {
            status(key_result, Some(day("2026-01-01")), Some(day("2026-12-31")), day(today))
        };
        assert_eq!(on(&half_way, "2025-12-31"), KeyResultStatus::NotStarted);
        assert_eq!(on(&half_way, "2026-06-30"), KeyResultStatus::OnTrack);
        assert_eq!(on(&half_way, "2026-12-01"), KeyResultStatus::AtRisk);
        assert_eq!(on(&half_way, "2027-01-01"), KeyResultStatus::Missed);
        assert_eq!(on(&KeyResultContent { current_value: Some(5.0), ..half_way.clone() }, "2026-12-01"), KeyResultStatus::Behind);
        assert_eq!(
            on(&KeyResultContent { current_value: Some(100.0), ..half_way.clone() }, "2027-01-01"),
            KeyResultStatus::Achieved
        );
        assert_eq!(on(&KeyResultContent { current_value: None, ..half_way }, "2026-06-30"), KeyResultStatus::NotStarted);
    }

    #[test]
    fn an_objective_has_come_as_far_as_its_key_results_on_average() {
        assert_eq!(mean([Some(0.5), None, Some(1.0)]), Some(0.75));
        assert_eq!(mean([None]), None);
    }
}
