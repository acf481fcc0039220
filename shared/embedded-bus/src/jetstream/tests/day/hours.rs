//! The hours of the day, and what happens in them.

use super::{Day, HOUR, MIB, NOW, Recent, SECOND, TICK, block, settings};

impl Day {
    /// Passes an ordinary hour, with one event in the middle.
    fn hour(&mut self, number: u64) {
        self.doing = "an hour of messages";
        let ends = NOW + (number + 1) * HOUR;
        let pause = HOUR / (self.plan.rate / 4);
        let event = self.now + self.random.u64(..HOUR / 2);
        let mut happened = false;
        while self.now + pause < ends {
            self.publish();
            match self.random.u8(..40) {
                0 => self.erase(),
                1 => self.ban(),
                2..6 => self.repeat_some(1),
                _ => {}
            }
            self.wait(pause - 3 * TICK);
            if !happened && self.now >= event {
                happened = true;
                match number % 6 {
                    1 => self.restart(false),
                    3 | 5 => self.restart(true),
                    _ => {}
                }
            }
        }
        self.repeat_some(20);
        self.compare();
    }

    /// Sets the limit below the bytes that are there: nothing is stored, and everything else works, over
    /// restarts too.
    fn is_full(&mut self) {
        self.doing = "a full store";
        self.limit = MIB / 2;
        assert!(self.live() > 2 * self.limit, "{}: more is alive", self.context());
        self.restart(false);
        let (refused, number) = (self.refused, self.number);
        for round in 0..40 {
            self.publish();
            self.erase();
            self.wait(30 * SECOND);
            if round == 20 {
                self.restart(true);
            }
        }
        assert_eq!(self.refused - refused, self.number - number, "{}: all are refused", self.context());
        self.compare();
        self.limit = self.plan.limit;
        self.doing = "a store that has room again";
        self.restart(false);
    }

    /// Lets the stream hold more than the store: messages are refused at the store's limit, and not before.
    fn reaches_the_limit(&mut self) {
        self.doing = "a stream that grows up to the store's limit";
        self.ask("STREAM.UPDATE.M", &settings(self.plan.limit * 4));
        let refused = self.refused;
        for _ in 0..self.plan.limit / 10_000 {
            self.number += 1;
            let payload = "x".repeat(20_000);
            self.tell("M", &[(format!("u.grows{}", self.number), block(&[]), payload)]);
            self.wait(SECOND);
            if self.refused > refused + 20 {
                break;
            }
        }
        assert!(self.refused > refused, "{}: the limit holds", self.context());
        self.compare();
        for _ in 0..10 {
            self.erase();
        }
        self.restart(true);
        self.doing = "a stream that has to fit again";
        self.ask("STREAM.UPDATE.M", &settings(self.plan.history));
        for _ in 0..50 {
            self.wait(SECOND);
        }
        self.compare();
    }

    /// Publishes much to one channel, which pushes out its earlier messages. Their ids stay in the window for
    /// its time, whatever becomes of the messages and their files.
    fn burst(&mut self) {
        self.doing = "a burst to one channel";
        for _ in 0..600 {
            self.number += 1;
            let (subject, id) = ("u.burst".to_owned(), self.number.to_string());
            let message = (subject.clone(), block(&[("Nats-Msg-Id", &id)]), "burst".repeat(600));
            if self.tell("M", &[message]) == [true] {
                self.recent.push_back(Recent { time: self.now, number: self.number, subject });
            }
            self.wait(SECOND / 10);
        }
        self.erase_all_of("u.burst");
        for _ in 0..50 {
            self.wait(0);
        }
        self.restart(true);
        self.repeat_some(400);
    }

    pub(super) fn pass(&mut self) {
        for number in 0..24 {
            match number {
                4 | 12 | 20 => self.burst(),
                9 => self.is_full(),
                15 => self.reaches_the_limit(),
                _ => {}
            }
            self.hour(number);
        }
    }
}
