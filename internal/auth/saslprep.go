package auth

import (
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/unicode/norm"
)

// prepare is PostgreSQL's pg_saslprep (src/common/saslprep.c): RFC 4013, with its
// own order of steps, and the password unchanged where it is ASCII, not UTF-8, or
// refused by the profile.
func prepare(password string) string {
	ascii := true
	for i := range len(password) {
		ascii = ascii && password[i] < utf8.RuneSelf
	}
	if ascii || !utf8.ValidString(password) {
		return password
	}
	var mapped []rune
	for _, r := range password {
		switch {
		case isSpace(r):
			mapped = append(mapped, ' ')
		case isDropped(r):
		default:
			mapped = append(mapped, r)
		}
	}
	if len(mapped) == 0 || prohibited(mapped) || !directionsAgree(mapped) {
		return password
	}
	return norm.NFKC.String(string(mapped))
}

// isSpace is table C.1.2. U+200B stands in B.1 too; PostgreSQL looks here first.
func isSpace(r rune) bool { return stringprep.TableC1_2.Contains(r) || r == 0x200b }

// isDropped is table B.1, "commonly mapped to nothing".
func isDropped(r rune) bool {
	to, ok := stringprep.TableB1.Map(r)
	return ok && len(to) == 0
}

// prohibited is RFC 4013, sections 2.3 and 2.5. PostgreSQL looks before it
// normalizes.
func prohibited(runes []rune) bool {
	tables := []stringprep.Set{
		stringprep.TableA1, stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3,
		stringprep.TableC4, stringprep.TableC5, stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
	}
	for _, r := range runes {
		for _, t := range tables {
			if t.Contains(r) {
				return true
			}
		}
	}
	return false
}

// directionsAgree is RFC 3454, section 6: a string with a right-to-left letter has no
// left-to-right one, and begins and ends with a right-to-left one.
func directionsAgree(runes []rune) bool {
	right := strings.ContainsFunc(string(runes), stringprep.TableD1.Contains)
	if !right {
		return true
	}
	return !strings.ContainsFunc(string(runes), stringprep.TableD2.Contains) &&
		stringprep.TableD1.Contains(runes[0]) && stringprep.TableD1.Contains(runes[len(runes)-1])
}
