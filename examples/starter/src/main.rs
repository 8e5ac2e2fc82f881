use std::error::Error;

use countersign_mesh::guard::{self, Guard};
use countersign_mesh::session::Session;
use inventory::inventory_server::{Inventory, InventoryServer};
use inventory::{CheckStockRequest, CheckStockResponse, POLICIES, PingRequest, PingResponse};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

struct Shop;

#[tonic::async_trait]
impl Inventory for Shop {
    async fn check_stock(
        &self,
        request: Request<CheckStockRequest>,
    ) -> Result<Response<CheckStockResponse>, Status> {
        let caller = guard::caller(request.extensions()).map(|caller| caller.claims());
        println!("{:?} asks for {}", caller.map(|it| &it.client_id), request.get_ref().sku);
        Ok(Response::new(CheckStockResponse { in_stock: 7 }))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {}))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let session = Session::from_env()?;
    let guard = Guard::new(&session, POLICIES);
    let server = Server::builder().layer(guard).add_service(InventoryServer::new(Shop));
    server.serve("127.0.0.1:8081".parse()?).await?;
    Ok(())
}
