package schema

import (
	"bytes"

	"sluice.dev/sluice"
)

// SlotOf is the slot of a key's canonical bytes (S7): CRC16/XMODEM of the hash
// tag, mod 16384, as in Redis Cluster. The hash tag is what stands between the
// first `{` and the next `}` when that is not empty, else the whole.
func SlotOf(canonical []byte) uint16 {
	tag := canonical
	if open := bytes.IndexByte(canonical, '{'); open >= 0 {
		if n := bytes.IndexByte(canonical[open+1:], '}'); n > 0 {
			tag = canonical[open+1 : open+1+n]
		}
	}
	crc := uint16(0)
	for _, b := range tag {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^b]
	}
	return crc % sluice.Slots
}

var crcTable = makeCRCTable()

func makeCRCTable() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc & 0x8000
			crc <<= 1
			if carry != 0 {
				crc ^= 0x1021
			}
		}
		table[i] = crc
	}
	return table
}
