//! The sums of one section of one position, as an opening has them: the number of lists, one byte; of each list how many sums it
//! has, 32 bits, and how many bits each has above its low sixteen, one byte; then the lists ([`Packed`]). A map is a list, or
//! two with 16-bit inputs: the sums of the high digits and of the low ones.

use exact::packed::Packed;

/// Bytes before the lists of a section that has so many.
fn head_bytes(lists: usize) -> usize {
    1 + 5 * lists
}

/// How many sums a list has, and the bits of each above the low sixteen.
fn entry(section: &[u8], list: usize) -> Option<(usize, u8)> {
    let [a, b, c, d, bits] = *section.get(1 + 5 * list..)?.first_chunk()?;
    Some((u32::from_le_bytes([a, b, c, d]) as usize, bits))
}

/// Appends a section, with no fewer bits a sum above the low sixteen than these.
pub(crate) fn write(lists: &[Vec<i32>], least_bits: u8, to: &mut Vec<u8>) {
    to.push(lists.len() as u8);
    let bits: Vec<u8> = lists.iter().map(|sums| Packed::bits_of(sums).max(least_bits)).collect();
    for (sums, bits) in lists.iter().zip(&bits) {
        to.extend((sums.len() as u32).to_le_bytes());
        to.push(*bits);
    }
    lists.iter().zip(bits).for_each(|(sums, bits)| Packed::write(sums, bits, to));
}

/// The fewest bytes of a section whose lists have so many sums.
pub(crate) fn least_bytes(counts: impl ExactSizeIterator<Item = usize>) -> usize {
    head_bytes(counts.len()) + counts.filter_map(|count| Packed::bytes(count, 4)).sum::<usize>()
}

/// The bytes of the section that starts here and has lists of so many sums; nothing if it is another.
pub(crate) fn bytes(section: &[u8], counts: impl ExactSizeIterator<Item = usize>) -> Option<usize> {
    let lists = counts.len();
    if usize::from(*section.first()?) != lists {
        return None;
    }
    let each = counts.enumerate().map(|(list, count)| {
        let (found, bits) = entry(section, list)?;
        if found == count { Packed::bytes(count, bits) } else { None }
    });
    Some(head_bytes(lists) + each.sum::<Option<usize>>()?)
}

/// The lists of a section whose head is as [`bytes()`] wants it.
pub(crate) fn lists(section: &[u8]) -> impl Iterator<Item = Packed<'_>> {
    let lists = usize::from(section.first().copied().unwrap_or_default());
    let mut rest = section.get(head_bytes(lists)..).unwrap_or_default();
    (0..lists).map_while(move |list| {
        let (count, bits) = entry(section, list)?;
        let (these, others) = rest.split_at_checked(Packed::bytes(count, bits)?)?;
        rest = others;
        Packed::read(these, count, bits)
    })
}

/// Takes a section off the front of a position's: its lists of sums.
fn take(position: &mut &[u8]) -> Option<Vec<Vec<i32>>> {
    let lists = usize::from(*position.first()?);
    let counts: Option<Vec<usize>> = (0..lists).map(|list| Some(entry(position, list)?.0)).collect();
    let (section, rest) = position.split_at_checked(bytes(position, counts?.into_iter())?)?;
    *position = rest;
    Some(self::lists(section).map(|packed| packed.unpacked()).collect())
}

/// All sums of a position, section by section and list by list; nothing if they are not well formed.
pub(crate) fn read(mut position: &[u8]) -> Option<Vec<Vec<Vec<i32>>>> {
    let mut sections = vec![];
    while !position.is_empty() {
        sections.push(take(&mut position)?);
    }
    Some(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_and_say_when_they_are_others() {
        let sections = [vec![vec![1, -2, 3], vec![1 << 20, 7]], vec![vec![i32::MIN, 0, i32::MAX]], vec![vec![]]];
        let mut position = vec![];
        sections.iter().for_each(|section| write(section, 4, &mut position));
        assert_eq!(read(&position).unwrap(), sections);
        // 11 of the head, 6 + 2 of twenty bits each, 4 + 2 of twenty-four.
        assert_eq!(bytes(&position, [3, 2].into_iter()), Some(11 + 8 + 6));
        assert_eq!(least_bytes([3, 2].into_iter()), 11 + 8 + 5);
        for counts in [vec![3], vec![2, 3], vec![3, 2, 1], vec![]] {
            assert_eq!(bytes(&position, counts.into_iter()), None);
        }
        assert!((1..25).all(|end| read(&position[..end]).is_none()));
        assert_eq!(lists(&position[..20]).count(), 1);
        position[5] = 5;
        assert_eq!((read(&position), bytes(&position, [3, 2].into_iter())), (None, None));
    }
}
