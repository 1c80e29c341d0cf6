//! What `clients` and `queues` show: every page of the list, as a table or as one JSON document.

use std::fmt::Display;

use comfy_table::{CellAlignment, Table, presets};
use jiff::tz::TimeZone;
use tonic::Status;
use vantage_contract::v1::{Client, ClientState, ListClientsRequest, ListClientsResponse, ListQueuesRequest, ListQueuesResponse, Queue};

use crate::{client::Link, human};

/// How many rows are asked for at once: the most that the contract allows.
const PAGE_SIZE: i32 = 1000;

/// All clients, the pages put together.
pub async fn clients(link: &Link) -> Result<ListClientsResponse, Status> {
    let mut all = ListClientsResponse::default();
    loop {
        let request = ListClientsRequest { page_size: PAGE_SIZE, page_token: all.next_page_token };
        let page = link.admin().list_clients(request).await?.into_inner();
        all.clients.extend(page.clients);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// All queues, the pages put together.
pub async fn queues(link: &Link) -> Result<ListQueuesResponse, Status> {
    let mut all = ListQueuesResponse::default();
    loop {
        let request = ListQueuesRequest { page_size: PAGE_SIZE, page_token: all.next_page_token };
        let page = link.admin().list_queues(request).await?.into_inner();
        all.queues.extend(page.queues);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// The clients as a table, instants in `zone`.
pub fn clients_table(clients: &[Client], zone: &TimeZone) -> String {
    if clients.is_empty() {
        return "no clients\n".to_owned();
    }
    let head = ["CLIENT", "NAME", "ADDRESS", "VERSION", "STATE", "SINCE", "ORDERS", "STARTED", "SENT", "ACKED", "OUT", "IN"];
    let mut table = plain(&head, &[6, 7, 8, 9, 10, 11]);
    for client in clients {
        let state = ClientState::try_from(client.state).unwrap_or_default();
        table.add_row([
            printable(&client.client_id),
            printable(&client.name),
            printable(&client.address),
            printable(&client.version),
            human::words(state.as_str_name(), "CLIENT_STATE_"),
            client.state_time.as_ref().map(|since| human::instant(since, zone)).unwrap_or_default(),
            client.order_count.to_string(),
            client.started_run_count.to_string(),
            client.sent_result_count.to_string(),
            client.acknowledged_sequence.to_string(),
            human::bytes(client.sent_bytes),
            human::bytes(client.received_bytes),
        ]);
    }
    text(&table)
}

/// The queues as a table.
pub fn queues_table(queues: &[Queue]) -> String {
    if queues.is_empty() {
        return "no queues\n".to_owned();
    }
    let mut table = plain(
        &["CLIENT", "DUE", "IN FLIGHT", "UNACKED", "OLDEST", "SESSIONS", "UNWRITTEN", "JOURNAL", "LIMIT", "SKIPPED"],
        &[1, 2, 3, 4, 5, 6, 7, 8],
    );
    for queue in queues {
        let skipped = queue.skipped.iter().map(|skipped| {
            let reason = human::words(skipped.reason().as_str_name(), "REASON_");
            format!("{} {reason}", skipped.count)
        });
        table.add_row([
            printable(&queue.client_id),
            queue.due_count.to_string(),
            queue.in_flight_count.to_string(),
            queue.unacknowledged_count.to_string(),
            queue.oldest_age.as_ref().map(human::duration).unwrap_or_default(),
            queue.session_count.to_string(),
            human::bytes(queue.unwritten_bytes),
            human::bytes(queue.journal_bytes),
            human::bytes(queue.journal_limit_bytes),
            skipped.collect::<Vec<_>>().join(", "),
        ]);
    }
    text(&table)
}

/// A table without lines, so that it can be cut and sorted; the columns named by number stand to the right.
pub(crate) fn plain<H: Display>(head: &[H], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().map(ToString::to_string));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if numbers.contains(&column.index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table without the blanks at the ends of its lines.
pub(crate) fn text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// What others chose to call themselves must not steer our terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests;
