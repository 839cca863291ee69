//! The text that is published around a value: `value: "postgres://app:{value}@db/app"`.

use crate::secret_value::SecretValue;

/// Stands for the generated value.
const PLACE: &str = "{value}";

/// The text to publish: the template with the value in each place of `{value}`, or the value alone without one.
///
/// Nothing else in the template has a meaning, and the value is put in as it is: a URL needs a source whose characters
/// may stand in one, such as hex.
pub fn render(template: Option<&str>, value: &SecretValue) -> SecretValue {
    let Some(template) = template else { return value.duplicate() };
    // A String of exactly the capacity it needs leaves no copy behind by growing or shrinking.
    let places = template.matches(PLACE).count();
    let mut text = String::with_capacity(template.len() - places * PLACE.len() + places * value.len());
    for (n, part) in template.split(PLACE).enumerate() {
        if n > 0 {
            text.push_str(value.expose());
        }
        text.push_str(part);
    }
    SecretValue::new(text)
}

/// The value within a published text: what [`render`] put into the template, where it still fits the template.
/// White space at the end, such as the newline of a `put-parameter --value file://`, is not part of it.
pub fn extract(template: Option<&str>, published: &SecretValue) -> Option<SecretValue> {
    let text = published.expose().trim_end();
    let template = template.unwrap_or(PLACE).trim_end();
    let (before, after) = template.split_once(PLACE)?;
    // Of several places the first one tells; the others must then hold the same.
    let places = template.matches(PLACE).count();
    let around = template.len() - places * PLACE.len();
    let inside = text.len().checked_sub(around)?;
    if inside % places != 0 || !text.starts_with(before) {
        return None;
    }
    let value = text.get(before.len()..before.len() + inside / places)?;
    let value = SecretValue::new(value.to_owned());
    let fits = match places {
        1 => text.ends_with(after),
        _ => render(Some(template), &value).expose() == text,
    };
    fits.then_some(value)
}
