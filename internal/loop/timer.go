package loop

// timers is a heap of tasks by the time at which to look at them. A task has at most one entry, and the entry may be
// earlier than its deadline: moving a deadline later, as each query and each idle spell do, costs nothing; the entry is
// put right when it comes up.
type timers struct{ heap []*Task }

// next is the time of the earliest entry, 0 if there is none.
func (h *timers) next() int64 {
	if len(h.heap) == 0 {
		return 0
	}
	return h.heap[0].timerAt
}

// due takes off an entry that is not after now, nil if there is none.
func (h *timers) due(now int64) *Task {
	if len(h.heap) == 0 || h.heap[0].timerAt > now {
		return nil
	}
	t := h.heap[0]
	h.remove(t)
	return t
}

// set makes sure that t comes up at or before at.
func (h *timers) set(t *Task, at int64) {
	if t.timerPos == 0 {
		t.timerAt = at
		h.heap = append(h.heap, t)
		t.timerPos = len(h.heap)
		h.up(len(h.heap) - 1)
	} else if at < t.timerAt {
		t.timerAt = at
		h.up(t.timerPos - 1)
	}
}

// remove takes t's entry off, if it has one.
func (h *timers) remove(t *Task) {
	if t.timerPos == 0 {
		return
	}
	i, last := t.timerPos-1, len(h.heap)-1
	t.timerPos = 0
	moved := h.heap[last]
	h.heap[last] = nil
	h.heap = h.heap[:last]
	if i == last {
		return
	}
	h.put(i, moved)
	h.up(i)
	h.down(moved.timerPos - 1)
}

func (h *timers) put(i int, t *Task) {
	h.heap[i] = t
	t.timerPos = i + 1
}

func (h *timers) up(i int) {
	t := h.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if h.heap[parent].timerAt <= t.timerAt {
			break
		}
		h.put(i, h.heap[parent])
		i = parent
	}
	h.put(i, t)
}

func (h *timers) down(i int) {
	t := h.heap[i]
	for {
		child := 2*i + 1
		if child >= len(h.heap) {
			break
		}
		if child+1 < len(h.heap) && h.heap[child+1].timerAt < h.heap[child].timerAt {
			child++
		}
		if t.timerAt <= h.heap[child].timerAt {
			break
		}
		h.put(i, h.heap[child])
		i = child
	}
	h.put(i, t)
}
