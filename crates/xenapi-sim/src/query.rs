//! The language of `get_all_records_where`: `field "name_label" = "web" and not (true)`.

use crate::database::Row;

/// Which rows are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// All of them.
    True,
    /// None.
    False,
    /// Those that do not fit.
    Not(Box<Query>),
    /// Those that fit both.
    And(Box<Query>, Box<Query>),
    /// Those that fit either.
    Or(Box<Query>, Box<Query>),
    /// Those where these two are the same.
    Equal(Term, Term),
}

/// A side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// What a field holds.
    Field(String),
    /// This text.
    Literal(String),
}

/// How deep parentheses and `not` may be nested.
const DEPTH: u32 = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Equals,
}

impl Query {
    /// Reads a query; the text says what is wrong with one that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?, next: 0 };
        let query = parser.either(DEPTH)?;
        match parser.tokens.get(parser.next) {
            None => Ok(query),
            Some(token) => Err(format!("{token:?} comes after the end of the query")),
        }
    }

    /// Whether this row is wanted.
    pub(crate) fn fits(&self, row: &Row) -> bool {
        match self {
            Self::True => true,
            Self::False => false,
            Self::Not(query) => !query.fits(row),
            Self::And(one, two) => one.fits(row) && two.fits(row),
            Self::Or(one, two) => one.fits(row) || two.fits(row),
            Self::Equal(one, two) => one.of(row) == two.of(row),
        }
    }

    /// The first field that it names and `known` does not know.
    pub(crate) fn unknown_field(&self, known: &dyn Fn(&str) -> bool) -> Option<&str> {
        match self {
            Self::True | Self::False => None,
            Self::Not(query) => query.unknown_field(known),
            Self::And(one, two) | Self::Or(one, two) => {
                one.unknown_field(known).or_else(|| two.unknown_field(known))
            }
            Self::Equal(one, two) => [one, two].into_iter().find_map(|term| match term {
                Term::Field(name) if !known(name) => Some(name.as_str()),
                Term::Field(_) | Term::Literal(_) => None,
            }),
        }
    }
}

impl Term {
    fn of(&self, row: &Row) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Field(name) => {
                let place = row.info().find_field(&name.replace("__", "_"));
                place.map(|place| row.values[place].plain()).unwrap_or_default()
            }
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    fn take(&mut self) -> Result<Token, String> {
        let token = self.tokens.get(self.next).cloned().ok_or("the query ends too early")?;
        self.next += 1;
        Ok(token)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.tokens.get(self.next), Some(Token::Word(next)) if next == word);
        self.next += usize::from(is_next);
        is_next
    }

    fn either(&mut self, depth: u32) -> Result<Query, String> {
        let mut query = self.both(depth)?;
        while self.take_word("or") {
            query = Query::Or(Box::new(query), Box::new(self.both(depth)?));
        }
        Ok(query)
    }

    fn both(&mut self, depth: u32) -> Result<Query, String> {
        let mut query = self.one(depth)?;
        while self.take_word("and") {
            query = Query::And(Box::new(query), Box::new(self.one(depth)?));
        }
        Ok(query)
    }

    fn one(&mut self, depth: u32) -> Result<Query, String> {
        let depth = depth.checked_sub(1).ok_or("the query is nested too deeply")?;
        if self.take_word("not") {
            return Ok(Query::Not(Box::new(self.one(depth)?)));
        }
        if self.take_word("true") {
            return Ok(Query::True);
        }
        if self.take_word("false") {
            return Ok(Query::False);
        }
        if self.tokens.get(self.next) == Some(&Token::Open) {
            self.next += 1;
            let query = self.either(depth)?;
            return match self.take()? {
                Token::Close => Ok(query),
                token => Err(format!("`)` was expected, and {token:?} came")),
            };
        }
        let one = self.term()?;
        match self.take()? {
            Token::Equals => Ok(Query::Equal(one, self.term()?)),
            token => Err(format!("`=` was expected, and {token:?} came")),
        }
    }

    fn term(&mut self) -> Result<Term, String> {
        match self.take()? {
            Token::Text(text) => Ok(Term::Literal(text)),
            Token::Word(word) if word == "field" => match self.take()? {
                Token::Text(name) => Ok(Term::Field(name)),
                token => Err(format!("a field's name was expected, and {token:?} came")),
            },
            token => Err(format!("a field or a text was expected, and {token:?} came")),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '=' => tokens.push(Token::Equals),
            quote @ ('"' | '\'') => {
                let mut text = String::new();
                loop {
                    match letters.next() {
                        Some('\\') => text.extend(letters.next()),
                        Some(letter) if letter == quote => break,
                        Some(letter) => text.push(letter),
                        None => return Err("a text has no closing quote".into()),
                    }
                }
                tokens.push(Token::Text(text));
            }
            letter if letter.is_ascii_alphabetic() => {
                let mut word = String::from(letter);
                while let Some(next) =
                    letters.next_if(|it| it.is_ascii_alphanumeric() || *it == '_')
                {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            letter => return Err(format!("`{letter}` has no meaning here")),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::database::Database;

    #[test]
    fn queries_select_rows() {
        let mut db = Database::new(1);
        let fields = vec![("name_label", "web \"1\"".into()), ("is_a_template", true.into())];
        let vm = db.insert("VM", fields);
        let row = db.row("VM", vm).unwrap();
        for (text, fits) in [
            ("true", true),
            ("not true", false),
            (r#"field "name_label" = "web \"1\"""#, true),
            (r#"field "name__label" = "web \"1\"" and field "is_a_template" = "true""#, true),
            (r#"field "is_a_template"="false" or (not (false) and true)"#, true),
            (r#"not field "is_a_template"="true" or false"#, false),
            (r#""a" = 'a'"#, true),
        ] {
            assert_eq!(Query::parse(text).unwrap().fits(row), fits, "{text}");
        }
    }

    #[test]
    fn what_is_no_query_is_told_so() {
        for text in ["", "field", "(true", "true)", "field name = \"x\"", "\"x", "true true", "1"] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
        assert!(Query::parse(&"(".repeat(100_000)).is_err());
        assert!(Query::parse(&"not ".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_parser(text in "[a-z()=\"' ]{0,60}") {
            let _ = Query::parse(&text);
        }
    }
}
