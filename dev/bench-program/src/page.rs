//! The printed Markdown page, section by section.

use std::fmt::Display;

use crate::failure::Result;

#[derive(Default)]
pub(crate) struct Page {
    text: String,
    failed: usize,
}

impl Page {
    pub(crate) fn paragraph(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push_str("\n\n");
    }

    /// Adds a heading, the method of measurement, and the figures or the reason why there are none.
    pub(crate) fn section<T: Display>(&mut self, title: &str, how: &str, figures: Result<T>) {
        self.paragraph(&format!("## {title}"));
        self.paragraph(how);
        self.figures(figures);
    }

    /// Adds more figures to the section.
    pub(crate) fn figures<T: Display>(&mut self, figures: Result<T>) {
        match figures {
            Ok(figures) => self.paragraph(figures.to_string().trim_end()),
            Err(error) => {
                eprintln!("keyturn-bench: {error}");
                self.failed += 1;
                self.paragraph(&format!("Not measured: {error}."));
            }
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// True when every section has its figures.
    pub(crate) fn is_complete(&self) -> bool {
        self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn what_could_not_be_measured_is_said_and_the_rest_is_shown() {
        let mut page = Page::default();
        page.section("One", "So.", Ok("| a |\n|---|\n"));
        assert!(page.is_complete());
        page.section::<&str>("Two", "Thus.", Err(Failure::Unexpected("why".to_owned())));
        assert!(!page.is_complete());
        assert_eq!(page.text(), "## One\n\nSo.\n\n| a |\n|---|\n\n## Two\n\nThus.\n\nNot measured: why.\n\n");
    }
}
