//! HTML that can't be broken by what is written into it: markup is our own, known when this is compiled; everything else is escaped.

/// A document, or a part of one, that grows.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own. That it is `'static` is what keeps data out.
    pub(super) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, or the value of a quoted attribute; escaped. Control characters become spaces: they have no place in a page.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                character if character.is_control() => self.0.push(' '),
                character => self.0.push(character),
            }
        }
        self
    }

    /// Text of at most `most` characters; what is longer is cut and ends in an ellipsis.
    pub(super) fn short(&mut self, text: &str, most: usize) -> &mut Self {
        match text.char_indices().nth(most) {
            Some((end, _)) => self.text(text.get(..end).unwrap_or_default()).markup("…"),
            None => self.text(text),
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Html;
    use proptest::prelude::*;

    #[test]
    fn text_never_becomes_markup() {
        let mut html = Html::default();
        html.markup("<p title=\"").text("\" onclick='x").markup("\">").text("<script>&\u{0}\n").markup("</p>");
        assert_eq!(html.finish(), "<p title=\"&quot; onclick=&#39;x\">&lt;script&gt;&amp;  </p>");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let mut html = Html::default();
        html.short("äöü", 2).short("äöü", 3);
        assert_eq!(html.finish(), "äö…äöü");
    }

    proptest! {
        #[test]
        fn whatever_the_text_it_has_no_character_of_markup(text in any::<String>()) {
            let mut html = Html::default();
            html.text(&text);
            prop_assert!(!html.finish().contains(['<', '>', '"', '\'']));
        }
    }
}
